"""SigLIP with a ViT-B/16 at 224 pixels.

  ssljax train --config=configs/siglip_vit_b16.py --workdir=runs/siglip_b16 --config.data.source=arrayrecord:/data/pairs
  ssljax plan  --config=configs/siglip_vit_b16.py --topology=v5e:16x16

Recipe:    Zhai et al., arXiv 2303.15343: sigmoid loss at batch 32,768, t = 10 and b = -10 at the start, texts of 64
           tokens in small letters padded with their end, attention pooling; AdamW with b2 = 0.95 and decay 1e-4,
           peak 1e-3. The crop is CLIP's.
Data:      pairs of pictures and captions as ArrayRecord (`ssljax data prepare`), and a SentencePiece vocabulary of
           32,000 pieces (the paper's is C4's): `ssljax data tokenizer --vocab-size=32000 --out=captions.model`.
Hardware:  not run.
Number:    not yet measured.
"""

import ml_collections


def get_config(variant="40ep"):
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.steps = variant
  config.data = dict(source="arrayrecord:/data/pairs", split="train", batch_size=32_768, image_size=256, threads=16)
  config.data.captions = dict(tokenizer="captions.model", length=64, case="lower", padding="end")
  config.augment = dict(name="views.Views", recipe="clip", size=224, normalize="half")
  shared = dict(norm_epsilon=1e-6, activation="gelu_tanh", dtype="bfloat16", remat="full")
  image = dict(name="vit.ViT", variant="B", patch=16, image_size=224, positions="learnt", cls_token="none")
  image |= dict(pooling="map", **shared)
  text = dict(name="text_tower.TextTower", vocab_size=32_000, length=64, width=768, depth=12, heads=12)
  text |= dict(attention="all", pooling="last", **shared)
  config.objective = dict(
    name="clip.SigLIP",
    model=dict(
      name="dual.DualEncoder",
      image=dict(name="dual.Tower", width=None, encoder=image),
      text=dict(name="dual.Tower", width=768, bias="present", encoder=text),
      initial_scale=10.0,
      initial_bias=-10.0,
    ),
    pairs="gather",
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=dict(name="cosine", peak=1e-3, warmup_steps=5000, total_steps=variant),
    b1=0.9,
    b2=0.95,
    weight_decay=1e-4,
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
