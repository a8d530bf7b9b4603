"""Self-supervised label augmentation with a ResNet-18 on CIFAR-10 (Lee et al., arXiv 1910.05872). Reads the labels.

  ssljax train --config=configs/sla_resnet18.py --workdir=runs/sla_r18

Optimiser, learning rate, batch and steps are those of the released code.

Data:      cifar10 prepared by TFDS as ArrayRecord (pip install "ssljax[tfds]").
Hardware:  one accelerator.
Number:    not yet measured.
Differs:   theirs is a ResNet of 32 layers, its views are crops of 32 pixels after padding by 4; here they are resized
           crops of at least 60 % of the area. Biases and normalisations are not decayed, in the released code they are.
"""

import ml_collections

STEPS = 80_000


def get_config():
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.steps = STEPS
  config.data = dict(source="tfds:cifar10", split="train", batch_size=128, image_size=32, threads=8)
  config.augment = dict(name="views.Views", recipe="mae", size=32, crop_scale=(0.6, 1.0))
  config.objective = dict(
    name="sla.SLA",
    encoder=dict(name="resnet.ResNet", depth=18, stem="cifar", dtype="bfloat16"),
    num_classes=10,
    transformation="rotation",
    single="distilled",
  )
  config.optimizer = dict(
    name="sgd",
    learning_rate=dict(name="staircase", peak=0.1, factor=0.1, boundaries=(STEPS // 2, STEPS * 3 // 4)),
    momentum=0.9,
    weight_decay=1e-4,
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
