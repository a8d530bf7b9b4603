"""SimSiam with a ResNet-50 on ImageNet-1k, the settings of the released code (Chen and He, arXiv 2011.10566).

  ssljax train --config=configs/simsiam_resnet50.py --workdir=runs/simsiam    100 epochs

Data:      imagenet2012 prepared by TFDS as ArrayRecord (pip install "ssljax[tfds]").
Hardware:  meant for 8 GPUs or TPU v3-8; nobody has run it on either yet.
Number:    the released code reports 68.1 % linear probe. Here: not yet measured.
Differs:   biases and normalisations are not decayed, in the released code they are.
"""

import ml_collections

BATCH = 512
RATE = 0.05  # a batch of 256


def get_config(variant="100ep"):
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.steps = variant
  # A canvas of 320 pixels leaves 143 to the smallest crop (20 % of the area).
  config.data = dict(source="tfds:imagenet2012", split="train", batch_size=BATCH, image_size=320, threads=16)
  config.augment = dict(name="views.Views", recipe="moco_v2", size=224)
  config.objective = dict(
    name="simsiam.SimSiam",
    encoder=dict(name="resnet.ResNet", depth=50, dtype="bfloat16"),
    projector_width=2048,
    predictor_hidden=512,
  )
  config.optimizer = dict(
    name="sgd",
    learning_rate=dict(name="cosine", peak=RATE, total_steps=variant),
    lr_rules=[("^predictor", RATE)],  # does not fall
    scale="linear",  # times batch / 256
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
