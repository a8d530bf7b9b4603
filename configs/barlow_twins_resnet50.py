"""Barlow Twins with a ResNet-50 on ImageNet-1k, the paper's settings (Zbontar et al., arXiv 2103.03230).

  ssljax train --config=configs/barlow_twins_resnet50.py --workdir=runs/barlow_r50          1000 epochs
  ssljax train --config=configs/barlow_twins_resnet50.py:300ep --workdir=runs/barlow_r50    300 epochs

Data:      imagenet2012 prepared by TFDS as ArrayRecord (pip install "ssljax[tfds]").
Hardware:  meant for a TPU v3-64 or 32 GPUs; nobody has run it on either yet.
Number:    the authors' released ResNet-50 has 73.5 % linear probe (1000 epochs). Here: not yet measured.
Weight decay is the released code's 1e-6; the paper's text says 1.5e-6.
"""

import ml_collections

BATCH = 2048
PEAK = 0.2


def get_config(variant="1000ep"):
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.steps = variant
  # A canvas of 384 pixels leaves 109 to the smallest crop (8 % of the area).
  config.data = dict(source="tfds:imagenet2012", split="train", batch_size=BATCH, image_size=384, threads=16)
  config.augment = dict(name="views.Views", recipe="byol", size=224)
  config.objective = dict(
    name="barlow_twins.BarlowTwins",
    encoder=dict(name="resnet.ResNet", depth=50, dtype="bfloat16"),
    projector_hidden=8192,
    projector_out=8192,
    projector_layers=3,
    off_diagonal_weight=0.0051,
  )
  config.optimizer = dict(
    name="lars",
    learning_rate=dict(name="cosine", peak=PEAK, end=PEAK / 1000, warmup_steps="10ep", total_steps=variant),
    scale="linear",  # times batch / 256
    momentum=0.9,
    trust=0.001,
    weight_decay=1e-6,
    lr_multipliers=((r"/(bias|scale)$", 0.0048 / PEAK),),  # biases and norms learn at 0.0048
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
