"""RotNet with a ResNet-18 on CIFAR-10 (Gidaris et al., arXiv 1803.07728).

  ssljax train --config=configs/rotnet_resnet18.py --workdir=runs/rotnet_r18

Optimiser, learning rate, batch and epochs are those of the released code. The network is not: theirs is a
Network-in-Network, of whose middle layers the features are taken. Nor are the views: theirs are crops of 32 pixels
after padding by 4, here they are resized crops of at least 60 % of the area; both are mirrored at random.

Data:      cifar10 prepared by TFDS as ArrayRecord (pip install "ssljax[tfds]").
Hardware:  one accelerator.
Number:    not yet measured.
"""

import ml_collections

BATCH = 128  # each picture in four rotations


def get_config(variant="200ep"):
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.steps = variant
  config.data = dict(source="tfds:cifar10", split="train", batch_size=BATCH, image_size=32, threads=8)
  config.augment = dict(name="views.Views", recipe="mae", size=32, crop_scale=(0.6, 1.0))
  config.objective = dict(
    name="rotnet.RotNet", encoder=dict(name="resnet.ResNet", depth=18, stem="cifar", dtype="bfloat16")
  )
  config.optimizer = dict(
    name="sgd",
    learning_rate=dict(name="staircase", peak=0.1, factor=0.2, boundaries=("60ep", "120ep", "160ep")),
    momentum=0.9,
    acceleration="nesterov",
    weight_decay=5e-4,
  )
  config.checkpoint = dict(every=2000, keep=2)
  config.log_every = 50
  config.evaluation = dict(
    train="train[:10000]",
    test="test",
    every=10_000,
    batch_size=1024,
    evals=dict(
      knn=dict(name="knn.KNN", k=20),
      linear_probe=dict(name="linear_probe.LinearProbe"),
      rankme=dict(name="rankme.RankMe"),
    ),
  )
  return config
