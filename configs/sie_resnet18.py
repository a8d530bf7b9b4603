"""SIE with a ResNet-18, the weights and the optimiser of the paper (Garrido et al., arXiv 2302.10283), on ImageNet-1k.

  ssljax train --config=configs/sie_resnet18.py --workdir=runs/sie_r18          100 epochs
  ssljax train --config=configs/sie_resnet18.py:2000ep --workdir=runs/sie_r18   as many as the paper's

Data:      imagenet2012 prepared by TFDS as ArrayRecord (pip install "ssljax[tfds]").
Hardware:  meant for 8 GPUs or TPU v3-8; nobody has run it on either yet.
Number:    not yet measured; the paper's are of another data set.
Differs:   the paper's pictures are renderings of 3D objects (3DIEBench) and its equivariant half follows how an object
           turns; here it follows how crops, mirror images and colours differ. Weight decay (1e-6) is decoupled.
"""

import ml_collections


def get_config(variant="100ep"):
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.steps = variant
  # A canvas of 384 pixels leaves 109 to the smallest crop (8 % of the area).
  config.data = dict(source="tfds:imagenet2012", split="train", batch_size=1024, image_size=384, threads=16)
  config.augment = dict(name="views.Views", recipe="simclr", size=224, tell="transforms")
  config.objective = dict(
    name="sie.SIE",
    encoder=dict(name="resnet.ResNet", depth=18, dtype="bfloat16"),
    equivariant=256,
    projector_hidden=2048,
    projector_out=2048,
    projector_layers=3,
    invariance=10.0,
    equivariance=4.5,
    variance=10.0,
    covariance=1.0,
  )
  config.optimizer = dict(name="adamw", learning_rate=1e-3, weight_decay=1e-6)
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
