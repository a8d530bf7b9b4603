"""SwAV with a ResNet-50 on ImageNet-1k, the released code's settings (Caron et al., arXiv 2006.09882).

  ssljax train --config=configs/swav_resnet50.py --workdir=runs/swav_r50          800 epochs
  ssljax train --config=configs/swav_resnet50.py:100ep --workdir=runs/swav_r50    100 epochs

Data:      imagenet2012 prepared by TFDS as ArrayRecord (pip install "ssljax[tfds]").
Differs:   the warm-up starts at 0 instead of 0.3; biases and norms are neither adapted nor decayed. For a batch of
           256 the paper has a queue of 3840 from epoch 15 on: `objective.queue`, `objective.queue_from`.
Hardware:  meant for a TPU v3-128 or better; nobody has run it on one yet.
Number:    the released code reports 75.3 % linear probe (800 epochs) and 72.1 % (100 epochs). Here: not yet measured.
"""

import ml_collections


def get_config(variant="800ep"):
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.steps = variant
  config.data = dict(source="tfds:imagenet2012", split="train", batch_size=4096, image_size=384, threads=16)
  config.augment = dict(name="views.Views", recipe="swav", size=224)
  config.objective = dict(
    name="swav.SwAV",
    encoder=dict(name="resnet.ResNet", depth=50, dtype="bfloat16"),
    projector_hidden=2048,
    projector_out=128,
    prototypes=3000,
    temperature=0.1,
    epsilon=0.05,
    iterations=3,
  )
  config.optimizer = dict(
    name="lars",
    learning_rate=dict(name="cosine", peak=4.8, end=0.0048, warmup_steps="10ep", total_steps=variant),
    momentum=0.9,
    trust=0.001,
    weight_decay=1e-6,
    hold=(("prototypes", 313),),
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
