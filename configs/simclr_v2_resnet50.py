"""SimCLR v2 with a ResNet-50 on ImageNet-1k, the paper's settings (Chen et al., arXiv 2006.10029).

  ssljax train --config=configs/simclr_v2_resnet50.py --workdir=runs/simclr2_r50          800 epochs
  ssljax train --config=configs/simclr_v2_resnet50.py:100ep --workdir=runs/simclr2_r50    100 epochs

Beside the first SimCLR (simclr_resnet50.py): the projector has three layers and the learning rate follows the square
root of the batch. For few labels the network is fine-tuned from the projector's first layer, which `encode` gives as
"hidden".

Data:      imagenet2012 prepared by TFDS as ArrayRecord (pip install "ssljax[tfds]").
Hardware:  meant for a TPU v3-128 or better; nobody has run it on one yet.
Number:    the paper reports 71.7 % linear probe, 57.9 % and 68.4 % fine-tuned on 1 % and 10 % of the labels.
           Here: not yet measured.
"""

import ml_collections

BATCH = 4096


def get_config(variant="800ep"):
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.steps = variant
  # A canvas of 384 pixels leaves 109 to the smallest crop (8 % of the area).
  config.data = dict(source="tfds:imagenet2012", split="train", batch_size=BATCH, image_size=384, threads=16)
  config.augment = dict(name="views.Views", recipe="simclr", size=224)
  config.objective = dict(
    name="simclr.SimCLR",
    encoder=dict(name="resnet.ResNet", depth=50, dtype="bfloat16"),
    projector_hidden=2048,
    projector_out=128,
    projector_layers=3,
    temperature=0.1,
  )
  warmup = f"{float(variant.removesuffix('ep')) / 20:g}ep"  # 5 %
  config.optimizer = dict(
    name="lars",
    learning_rate=dict(name="cosine", peak=1.6, warmup_steps=warmup, total_steps=variant),
    scale="sqrt",  # times sqrt(batch / 256): 0.1 sqrt(batch), 6.4 at 4096
    buffer="steps",  # the learning rate is inside the momentum, as in the released code
    momentum=0.9,
    trust=0.001,
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
