"""MoCo v3 with a ViT-B/16 on ImageNet-1k, the paper's settings (Chen et al., arXiv 2104.02057).

  ssljax train --config=configs/moco_v3_vit_b16.py --workdir=runs/moco_v3_b16    300 epochs

Data:      imagenet2012 prepared by TFDS as ArrayRecord (pip install "ssljax[tfds]").
Hardware:  meant for a TPU v3-256 or 64 GPUs; nobody has run it on either yet.
Number:    the paper reports 76.7 % linear probe, 83.2 % fine-tuned. Here: not yet measured.
Differs:   biases and normalisations are not decayed, in the released code they are.
"""

import ml_collections

BATCH = 4096


def get_config(variant="300ep"):
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.steps = variant
  # A canvas of 384 pixels leaves 109 to the smallest crop (8 % of the area).
  config.data = dict(source="tfds:imagenet2012", split="train", batch_size=BATCH, image_size=384, threads=16)
  config.augment = dict(name="views.Views", recipe="byol", size=224)
  config.objective = dict(
    name="moco_v3.MoCoV3",
    encoder=dict(name="vit.ViT", variant="B", patch=16, image_size=224, pooling="cls", dtype="bfloat16"),
    projector_layers=3,
    projector_hidden=4096,
    projector_out=256,
    predictor_last_norm="plain",
    temperature=0.2,
    decay=dict(name="cosine", peak=0.99, end=1.0, total_steps=variant),
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=dict(name="cosine", peak=1.5e-4, warmup_steps="40ep", total_steps=variant),
    scale="linear",  # times batch / 256
    lr_multipliers=[("encoder/patch_embed", 0.0)],  # stays as it was drawn
    weight_decay=0.1,
  )
  config.checkpoint = dict(every=2000, keep=2, keep_every=50_000)
  config.log_every = 50
  config.evaluation = dict(
    train="train[:100000]",
    test="validation",
    every=25_000,
    batch_size=2048,
    evals=dict(
      knn=dict(name="knn.KNN", k=20),
      linear_probe=dict(name="linear_probe.LinearProbe"),
      rankme=dict(name="rankme.RankMe"),
    ),
  )
  return config
