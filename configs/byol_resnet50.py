"""BYOL with a ResNet-50 on ImageNet-1k, the settings of the released code (Grill et al., arXiv 2006.07733).

  ssljax train --config=configs/byol_resnet50.py --workdir=runs/byol          1000 epochs
  ssljax train --config=configs/byol_resnet50.py:100ep --workdir=runs/byol    100 epochs; 300ep

Data:      imagenet2012 prepared by TFDS as ArrayRecord (pip install "ssljax[tfds]").
Hardware:  meant for a TPU v3-128 or better; nobody has run it on one yet.
Number:    the paper reports 74.3 % linear probe (1000 epochs). Here: not yet measured.
"""

import ml_collections

BATCH = 4096
# Epochs: learning rate a batch of 256, weight decay, the teacher's first decay.
SETTINGS = {"1000ep": (0.2, 1.5e-6, 0.996), "300ep": (0.3, 1e-6, 0.99), "100ep": (0.45, 1e-6, 0.99)}


def get_config(variant="1000ep"):
  rate, weight_decay, decay = SETTINGS[variant]
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.steps = variant
  # A canvas of 384 pixels leaves 109 to the smallest crop (8 % of the area).
  config.data = dict(source="tfds:imagenet2012", split="train", batch_size=BATCH, image_size=384, threads=16)
  config.augment = dict(name="views.Views", recipe="byol", size=224)
  config.objective = dict(
    name="byol.BYOL",
    encoder=dict(name="resnet.ResNet", depth=50, dtype="bfloat16"),
    projector_hidden=4096,
    projector_out=256,
    decay=dict(name="cosine", peak=decay, end=1.0, total_steps=variant),
  )
  config.optimizer = dict(
    name="lars",
    learning_rate=dict(name="cosine", peak=rate, warmup_steps="10ep", total_steps=variant),
    scale="linear",  # times batch / 256
    buffer="gradients",
    momentum=0.9,
    trust=0.001,
    weight_decay=weight_decay,
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
