"""MoCo v2 with a ResNet-50 on ImageNet-1k, the paper's settings (Chen et al., arXiv 2003.04297).

  ssljax train --config=configs/moco_v2_resnet50.py --workdir=runs/moco_v2          200 epochs
  ssljax train --config=configs/moco_v2_resnet50.py:800ep --workdir=runs/moco_v2    800 epochs

Data:      imagenet2012 prepared by TFDS as ArrayRecord (pip install "ssljax[tfds]").
Hardware:  meant for 8 GPUs or TPU v3-8; nobody has run it on either yet.
Number:    the paper reports 67.5 % linear probe (200 epochs), 71.1 % (800 epochs). Here: not yet measured.
Differs:   biases and normalisations are not decayed, in the released code they are.
"""

import ml_collections

BATCH = 256


def get_config(variant="200ep"):
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.steps = variant
  # A canvas of 320 pixels leaves 143 to the smallest crop (20 % of the area).
  config.data = dict(source="tfds:imagenet2012", split="train", batch_size=BATCH, image_size=320, threads=16)
  config.augment = dict(name="views.Views", recipe="moco_v2", size=224)
  config.objective = dict(
    name="moco.MoCo",
    encoder=dict(name="resnet.ResNet", depth=50, last_scale="one", dtype="bfloat16"),
    projector_layers=2,
    projector_out=128,
    queue=65536,
    temperature=0.2,
    decay=0.999,
    groups=8,  # statistics of 32 pictures, as on the paper's 8 GPUs
  )
  config.optimizer = dict(
    name="sgd",
    learning_rate=dict(name="cosine", peak=0.03, total_steps=variant),
    momentum=0.9,
    weight_decay=1e-4,
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
