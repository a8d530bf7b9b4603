"""SimCLR with a ViT-B/16 on ImageNet-1k at a batch of 32,768, its pairs computed around a ring of all chips.

  ssljax train --config=configs/simclr_vit_b16_pod.py --workdir=runs/simclr_b16          300 epochs
  ssljax plan  --config=configs/simclr_vit_b16_pod.py --topology=v5p:4x4x4               what it needs; docs/scale.md

Recipe:    the method of Chen et al. (arXiv 2002.05709), its encoder and optimiser those of Chen, Xie, He (MoCo v3,
           arXiv 2104.02057); the learning rate grows with the root of the batch. Nobody has tuned it.
Data:      imagenet2012 prepared by TFDS as ArrayRecord (pip install "ssljax[tfds]").
Hardware:  meant for a TPU v5p of 4x4x4 chips; planned for it, not run on it.
Number:    not yet measured.
"""

import ml_collections


def get_config(variant="300ep"):
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.steps = variant
  config.data = dict(source="tfds:imagenet2012", split="train", batch_size=32_768, image_size=384, threads=16)
  config.augment = dict(name="views.Views", recipe="simclr", size=224)
  config.objective = dict(
    name="simclr.SimCLR",
    encoder=dict(name="vit.ViT", variant="B", patch=16, image_size=224, dtype="bfloat16", remat="full"),
    projector_hidden=4096,
    projector_out=256,
    projector_layers=3,
    temperature=0.2,
    pairs="ring",
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=dict(name="cosine", peak=1.5e-4, warmup_steps="40ep", total_steps=variant),
    scale="sqrt",  # times root of batch / 256
    b2=0.95,
    weight_decay=0.1,
  )
  config.checkpoint = dict(every=500, keep=2, keep_every=5000)
  config.log_every = 20
  config.evaluation = dict(
    train="train[:100000]",
    test="validation",
    every=5000,
    batch_size=2048,
    evals=dict(
      knn=dict(name="knn.KNN", k=20),
      linear_probe=dict(name="linear_probe.LinearProbe"),
      rankme=dict(name="rankme.RankMe"),
    ),
  )
  return config
