"""UL2's mixture on a decoder-only prefix language model of a billion parameters: 2048 wide, 16 layers, 1024 tokens.

  ssljax data tokenizer --source=tfds:c4/en --vocab-size=32000 --out=c4_32k.model
  ssljax train --config=configs/ul2_decoder_1b.py --workdir=runs/ul2_1b

Data:      c4/en prepared by TFDS as ArrayRecord (pip install "ssljax[tfds,text]").
Schedule:  infinite (arXiv 2503.02844), so that the run can be extended or fed other data at any step.
Hardware:  meant for a slice of a pod; nobody has run it yet.
Number:    not yet measured.
"""

import ml_collections


def get_config():
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.steps = 200_000
  config.data = dict(
    source="tfds:c4/en",
    split="train",
    batch_size=512,
    threads=8,
    text=dict(
      tokenizer="c4_32k.model",
      inputs_length=1024,
      layout="decoder_only",
      mixture="ul2",
      modes="ul2",
      sentinels=256,
    ),
  )
  config.objective = dict(
    name="ul2.UL2",
    model=dict(name="prefix_lm.PrefixLM", variant="1b", vocab_size=32512, dtype="bfloat16", remat="dots"),
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=dict(
      name="infinite",
      peak=3e-4,
      constant=1.5e-4,
      minimum=1e-5,
      warmup_steps=2000,
      cooldown_steps=60_000,
    ),
    b2=0.95,
    weight_decay=0.1,
    clip=1.0,
  )
  config.checkpoint = dict(every=2000, keep=2, keep_every=50_000)
  config.log_every = 50
  config.evaluation = dict(
    test="validation",
    every=20_000,
    batch_size=512,
    evals=dict(
      denoising=dict(name="denoising.BitsPerByte", max_rows=8192),
      ngram=dict(name="ngram.NGram", order=2),
      infill=dict(name="infill.Infill"),
    ),
  )
  return config
