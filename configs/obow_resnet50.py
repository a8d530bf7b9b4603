"""OBoW with a ResNet-50 on ImageNet-1k, near the released full setup (Gidaris et al., arXiv 2012.11552).

  ssljax train --config=configs/obow_resnet50.py --workdir=runs/obow_r50          200 epochs

Data:      imagenet2012 prepared by TFDS as ArrayRecord (pip install "ssljax[tfds]").
Differs:   words of the last map alone, there of the last two; large crops are as large as the teacher's picture (224
           pixels), there 160; small ones are drawn each for itself, there cut from one larger crop.
Hardware:  meant for a TPU v3-32 or better; nobody has run it on one yet.
Number:    the released code reports 73.8 % linear probe. Here: not yet measured.
"""

import ml_collections


def get_config(variant="200ep"):
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.steps = variant
  config.data = dict(source="tfds:imagenet2012", split="train", batch_size=256, image_size=384, threads=16)
  config.augment = dict(name="views.Views", recipe="obow", size=224)
  config.objective = dict(
    name="obow.OBoW",
    encoder=dict(name="resnet.ResNet", depth=50, dtype="bfloat16"),
    words=8192,
    inverse_delta=15.0,
    kappa=8.0,
    decay=dict(name="cosine", peak=0.99, end=1.0, total_steps=variant),
  )
  config.optimizer = dict(
    name="sgd",
    learning_rate=dict(name="cosine", peak=0.03, end=3e-5, warmup_steps="10ep", total_steps=variant),
    momentum=0.9,
    weight_decay=1e-4,
  )
  config.checkpoint = dict(every=5000, keep=2, keep_every=50_000)
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
