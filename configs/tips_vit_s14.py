"""TIPS with a ViT-S/14: captions, self-distillation and hidden patches on one encoder with two image tokens.

  ssljax train --config=configs/tips_vit_s14.py --workdir=runs/tips_s14 --config.data.source=arrayrecord:/data/pairs
  ssljax plan  --config=configs/tips_vit_s14.py --topology=v5e:8x8

Recipe:    Maninis et al., arXiv 2410.16512: the three losses, a second image token for captions that a model wrote,
           texts of 64 tokens, 224 pixels with local views of 98. The training code is not released and we do not know
           the rest: weights of the losses, temperatures and heads are DINO's and iBOT's, views are DINO's but for the
           mirror image, rates and batch are a guess that nobody has tried. The released S/14 was distilled from a g/14.
Data:      pairs of pictures and captions as ArrayRecord (`ssljax data prepare`), and a SentencePiece vocabulary of
           32,000 pieces: `ssljax data tokenizer --vocab-size=32000 --out=captions.model`. A picture's first caption is
           the one it was found with, the others are those that a model wrote: one of them at random is read beside it.
Hardware:  not run.
Number:    not yet measured.
"""

import ml_collections


def get_config(variant="30ep"):
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.steps = variant
  config.data = dict(source="arrayrecord:/data/pairs", split="train", batch_size=4096, image_size=256, threads=16)
  config.data.captions = dict(tokenizer="captions.model", length=64, pick="two", padding="end")
  config.augment = dict(name="views.Views", recipe="dino", size=224, local_size=98, flip=0.0)
  shared = dict(norm_epsilon=1e-6, activation="gelu_tanh", dtype="bfloat16", remat="full")
  text = dict(name="text_tower.TextTower", vocab_size=32_000, length=64, width=384, depth=12, heads=6)
  text |= dict(attention="all", pooling="last", **shared)
  config.objective = dict(
    name="tips.TIPS",
    encoder=dict(name="vit.ViT", variant="S", patch=14, registers=1, mask_token="learnt", layer_scale=1e-5, **shared),
    text=dict(name="dual.Tower", width=384, encoder=text),
    captions="two",
    pairs="gather",
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=dict(name="cosine", peak=5e-4, warmup_steps=5000, total_steps=variant),
    b2=0.95,
    weight_decay=0.04,
    clip=3.0,
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
