"""One ViT-B/16 on three tasks at once: hidden patches, two views, labels; ImageNet-1k.

  ssljax train --config=configs/multi_task_vit_b16.py --workdir=runs/multi_task_b16

The mix of Qian, "Heuristic Vision Pre-Training with Self-Supervised and Supervised Multi-Task Learning" (arXiv
2310.07510): masked modelling, a contrastive task and classification train one encoder. It is the idea and not the
recipe: the paper's encoder is a Swin-B, it has several labels a picture, and the weights of the tasks below are a
guess. The optimiser is that of mae_vit_b16.py.

Data:      imagenet2012 prepared by TFDS as ArrayRecord (pip install "ssljax[tfds]"); the labels are read.
Hardware:  meant for a TPU v4-64 or 32 GPUs of 80 GB; nobody has run it on either yet.
Number:    not yet measured.
"""

import ml_collections


def get_config(variant="300ep"):
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.steps = variant
  # A canvas of 320 pixels leaves 143 to the smallest crop (20 % of the area).
  config.data = dict(source="tfds:imagenet2012", split="train", batch_size=2048, image_size=320, threads=16)
  config.augment = dict(name="views.Views", recipe="moco_v2", size=224)
  config.objective = dict(
    name="multi_task.MultiTask",
    encoder=dict(name="vit.ViT", variant="B", patch=16, image_size=224, pooling="mean", dtype="bfloat16"),
    tasks=dict(
      masked=dict(name="mae.MAE", decoder_width=512, decoder_depth=8, decoder_heads=16, mask_ratio=0.75),
      contrastive=dict(name="simclr.SimCLR", projector_hidden=4096, projector_out=256, temperature=0.2),
      labels=dict(name="classify.Classifier", num_classes=1000, smoothing=0.1),
    ),
    weights=dict(contrastive=0.1, labels=0.1),
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
