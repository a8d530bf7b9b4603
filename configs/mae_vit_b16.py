"""MAE with a ViT-B/16 on ImageNet-1k, the paper's settings (He et al., arXiv 2111.06377, appendix A.1).

  ssljax train --config=configs/mae_vit_b16.py --workdir=runs/mae_b16           1600 epochs
  ssljax train --config=configs/mae_vit_b16.py:800ep --workdir=runs/mae_b16     800 epochs

Data:      imagenet2012 prepared by TFDS as ArrayRecord (pip install "ssljax[tfds]").
Hardware:  meant for a TPU v4-64 or 32 GPUs of 80 GB; nobody has run it on either yet.
Number:    the paper reports 68.0 % linear probe, 83.6 % fine-tuned (1600 epochs). Here: not yet measured.
"""

import ml_collections

BATCH = 4096


def get_config(variant="1600ep", size="B"):
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.steps = variant
  # A canvas of 320 pixels leaves 143 to the smallest crop (20 % of the area).
  config.data = dict(source="tfds:imagenet2012", split="train", batch_size=BATCH, image_size=320, threads=16)
  config.augment = dict(name="views.Views", recipe="mae", size=224)
  config.objective = dict(
    name="mae.MAE",
    encoder=dict(name="vit.ViT", variant=size, patch=16, image_size=224, pooling="mean", dtype="bfloat16"),
    decoder_width=512,
    decoder_depth=8,
    decoder_heads=16,
    mask_ratio=0.75,
    norm_pix=True,
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=dict(name="cosine", peak=1.5e-4, warmup_steps="40ep", total_steps=variant),
    scale="linear",  # times batch / 256
    b1=0.9,
    b2=0.95,
    weight_decay=0.05,
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
