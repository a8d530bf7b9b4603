"""MAE on crops of photographs that come inside pip packages: minutes on 2 CPU cores.

  pip install -e ".[data]" && ssljax train --config=configs/quickstart_mae.py --workdir=runs/mae

Task:      which of 60 photographs does a crop come from? Training crops are cut from the left 60 % of each photograph,
           test crops from the right 35 %: no pixel is shared. Chance is 0.017. The set is this one because raw pixels
           and untrained features leave room on it; on emoji categories a short run only equals raw pixels.
Hardware:  2 CPU cores.
Numbers:   three seeds (--config.seed=0, 1, 2), 285 to 428 s, 484 to 570 examples/s (other work ran beside):
                         kNN                   linear probe          RankMe
           raw pixels    .160 .160 .160        .175 .175 .175        268
           untrained     .362 .365 .360        .458 .450 .453        24.2 25.1 23.6
           trained       .422 .414 .411        .510 .484 .501        19.5 17.3 20.8
"""

import ml_collections

STEPS = 700


def get_config():
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.steps = STEPS
  config.data = dict(source="embedded:photos", split="train", batch_size=128, image_size=64)
  config.augment = dict(name="views.Views", recipe="mae", size=64)
  config.objective = dict(
    name="mae.MAE",
    encoder=dict(name="vit.ViT", variant="Ti", width=128, depth=4, heads=4, patch=8, image_size=64, pooling="mean"),
    decoder_width=64,
    decoder_depth=2,
    decoder_heads=4,
    mask_ratio=0.75,
    norm_pix=True,
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=dict(name="cosine", peak=1.5e-3, warmup_steps=STEPS // 10, total_steps=STEPS),
    b1=0.9,
    b2=0.95,
    weight_decay=0.05,
  )
  config.checkpoint = dict(every=200, keep=2)
  config.log_every = 20
  config.health = dict(every=100, examples=256)
  config.evaluation = dict(
    every=200,
    evals=dict(
      knn=dict(name="knn.KNN", k=20, temperature=0.07),
      linear_probe=dict(name="linear_probe.LinearProbe"),
      rankme=dict(name="rankme.RankMe"),
      feature_std=dict(name="rankme.FeatureStd"),
    ),
  )
  return config
