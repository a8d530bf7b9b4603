"""UL2 with a T5.1.1 base encoder-decoder on C4, the lengths and batch of the paper's ablations (arXiv 2205.05131).

  ssljax data tokenizer --source=tfds:c4/en --vocab-size=32000 --out=c4_32k.model
  ssljax train --config=configs/ul2_base.py --workdir=runs/ul2_base

Data:      c4/en prepared by TFDS as ArrayRecord (pip install "ssljax[tfds,text]"), 512 + 512 tokens.
Vocabulary: 32,000 pieces, 3 mode tokens and 128 sentinels (T5's 100 are too few for mu = 3, r = 0.5 at 512).
Hardware:  meant for 8 or more accelerators; nobody has run it yet.
Number:    not yet measured.
"""

import ml_collections


def get_config(variant="base", batch=128, steps=500_000):
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.steps = steps
  config.data = dict(
    source="tfds:c4/en",
    split="train",
    batch_size=batch,
    threads=8,
    text=dict(
      tokenizer="c4_32k.model",
      inputs_length=512,
      targets_length=512,
      layout="encoder_decoder",
      mixture="ul2",
      modes="ul2",
      sentinels=128,
    ),
  )
  config.objective = dict(
    name="ul2.UL2",
    model=dict(name="t5.T5", variant=variant, vocab_size=32256, dtype="bfloat16", dropout=0.0),
  )
  config.optimizer = dict(
    name="adafactor",
    learning_rate=dict(name="rsqrt", peak=0.01, warmup_steps=10_000),
  )
  config.checkpoint = dict(every=5000, keep=2, keep_every=100_000)
  config.log_every = 50
  config.evaluation = dict(
    test="validation",
    every=20_000,
    batch_size=batch,
    evals=dict(
      denoising=dict(name="denoising.BitsPerByte", max_rows=8192),
      ngram=dict(name="ngram.NGram", order=2),
      infill=dict(name="infill.Infill"),
    ),
  )
  return config
