"""UL2's mixture beside span corruption alone and causal language modelling alone: one model, the same tokens and steps.

Three runs, and three seeds of each (--config.seed=1, 2); each takes minutes on 2 CPU cores, nothing to download:

  ssljax train --config=configs/ul2_compare.py:ul2 --workdir=runs/compare/ul2
  ssljax train --config=configs/ul2_compare.py:span_corruption --workdir=runs/compare/span_corruption
  ssljax train --config=configs/ul2_compare.py:causal_lm --workdir=runs/compare/causal_lm
"""

import ml_collections


def get_config(objective="ul2"):
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.steps = 200
  config.data = dict(
    source="embedded:python",
    batch_size=8,
    text=dict(
      tokenizer="train:2048",
      inputs_length=256,
      row_inputs=512,
      layout="decoder_only",
      mixture=objective,
      modes="ul2" if objective == "ul2" else "absent",  # one denoiser needs no name
      sentinels=96,
    ),
  )
  config.objective = dict(
    name="ul2.UL2",
    model=dict(name="prefix_lm.PrefixLM", vocab_size=2176, width=192, depth=4, heads=3, head_width=64, hidden=512),
    groups=("R", "S", "X", "C"),
  )
  config.optimizer = dict(
    name="adafactor",
    learning_rate=dict(name="cosine", peak=0.03, warmup_steps=20, total_steps=200),
    clip=1.0,
  )
  config.checkpoint = dict(every=200, keep=1)
  config.log_every = 20
  config.evaluation = dict(
    batch_size=8,
    evals=dict(
      denoising=dict(name="denoising.BitsPerByte", mixture="ul2", max_rows=128),
      causal=dict(name="denoising.BitsPerByte", mixture="causal_lm", max_rows=128),
      ngram=dict(name="ngram.NGram", order=2),
    ),
  )
  return config
