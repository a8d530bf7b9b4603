"""CLIP with a ViT-B/32, its optimiser and schedule those of the paper.

  ssljax data prepare --source='webdataset:/data/cc12m/{...}.tar' --out=/data/cc12m_pairs      tar shards, read once
  ssljax train --config=configs/clip_vit_b32.py --workdir=runs/clip --config.data.source=arrayrecord:/data/cc12m_pairs
  ssljax plan  --config=configs/clip_vit_b32.py --topology=v5e:16x16

Recipe:    Radford et al., arXiv 2103.00020: batch 32,768, 32 epochs, peak 5e-4, Adam(.9, .98, 1e-6), decay 0.2, a crop
           of at least 90 % of the picture as the only augmentation. The pairs' logits are computed in blocks.
Data:      pairs of pictures and captions as ArrayRecord; CLIP's vocabulary (pip install --no-deps open_clip_torch).
Hardware:  not run.
Number:    not yet measured.
"""

import ml_collections


def get_config(variant="32ep"):
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.steps = variant
  config.data = dict(source="arrayrecord:/data/pairs", split="train", batch_size=32_768, image_size=256, threads=16)
  config.data.captions = dict(tokenizer="clip", length=77)
  config.augment = dict(name="views.Views", recipe="clip", size=224)
  shared = dict(norm_epsilon=1e-5, activation="quick_gelu", dtype="bfloat16", remat="full")
  image = dict(name="vit.ViT", variant="B", patch=32, image_size=224, positions="learnt", pooling="cls")
  image |= dict(pre_norm="present", patch_bias="absent", **shared)
  text = dict(name="text_tower.TextTower", vocab_size=49408, length=77, width=512, depth=12, heads=8, **shared)
  config.objective = dict(
    name="clip.CLIP",
    model=dict(
      name="dual.DualEncoder",
      image=dict(name="dual.Tower", width=512, encoder=image),
      text=dict(name="dual.Tower", width=512, encoder=text),
    ),
    pairs="gather",
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=dict(name="cosine", peak=5e-4, warmup_steps=2000, total_steps=variant),
    b1=0.9,
    b2=0.98,
    eps=1e-6,
    weight_decay=0.2,
  )
  config.checkpoint = dict(every=1000, keep=2, keep_every=10_000)
  config.log_every = 20
  config.evaluation = dict(
    test="test",
    every=5000,
    batch_size=2048,
    evals=dict(retrieval=dict(name="retrieval.Retrieval")),
  )
  return config
