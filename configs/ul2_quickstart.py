"""UL2's mixture of denoisers on the source code of Python itself: minutes on 2 CPU cores, nothing to download.

  pip install -e ".[data,text]" && ssljax train --config=configs/ul2_quickstart.py --workdir=runs/ul2
  ssljax eval --workdir=runs/ul2 --evals=infill

Data:      the interpreter's standard library (other versions of Python give other numbers); packages whose name hashes
           to the test split are held out. 2,048 pieces are learnt from the training split first (a minute, kept).
Model:     T5.1.1, 192 wide, 3 + 3 layers, tied head. Examples of at most 128 + 64 tokens, several in a row.
"""

import ml_collections

STEPS = 400


def get_config():
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.steps = STEPS
  config.data = dict(
    source="embedded:python",
    batch_size=8,
    text=dict(
      tokenizer="train:2048",
      inputs_length=128,
      targets_length=64,
      row_inputs=512,
      row_targets=232,
      layout="encoder_decoder",
      mixture="ul2",
      modes="ul2",
    ),
  )
  config.objective = dict(
    name="ul2.UL2",
    model=dict(name="t5.T5", vocab_size=2112, width=192, depth=3, heads=3, head_width=64, hidden=512, head="tied"),
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=dict(
      name="infinite",
      peak=4e-3,
      constant=1.5e-3,
      minimum=1e-4,
      warmup_steps=40,
      cooldown_steps=240,
      anneal_start=300,
      anneal_steps=100,
    ),
    b2=0.98,
    weight_decay=0.01,
    clip=1.0,
  )
  config.checkpoint = dict(every=100, keep=2)
  config.log_every = 20
  config.evaluation = dict(
    batch_size=8,
    evals=dict(
      denoising=dict(name="denoising.BitsPerByte", max_rows=256),
      ngram=dict(name="ngram.NGram", order=2),
      infill=dict(name="infill.Infill"),
    ),
  )
  return config
