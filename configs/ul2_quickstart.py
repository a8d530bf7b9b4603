"""UL2's mixture of denoisers on the source code of Python itself: minutes on 2 CPU cores, nothing to download.

  pip install -e ".[data,text]" && ssljax train --config=configs/ul2_quickstart.py --workdir=runs/ul2
  ssljax eval --workdir=runs/ul2 --evals=infill

Data:      the interpreter's standard library (other versions of Python give other numbers); packages whose name hashes
           to the test split are held out. 2,048 pieces are learnt from the training split first (a minute, kept).
Model:     T5.1.1, 192 wide, 3 + 3 layers, tied head. Examples of at most 128 + 64 tokens, several in a row.
Hardware:  2 CPU cores.
Numbers:   three seeds (--config.seed=0, 1, 2), 326 to 350 s, Python 3.11.7; the first run also learns the pieces (7 min
           in all). Held-out bits per byte, all nats of the targets (sentinels, ends of sequence) over the bytes of
           their text, 256 rows a group:
                              R                    S                    X
           byte n-gram (2)    2.671                2.671                2.671
           untrained          5.574 5.597 5.589    4.380 4.405 4.428    5.004 5.051 5.074
           trained            2.512 2.522 2.511    2.080 2.090 2.076    2.320 2.330 2.313
           After 300 steps it knows the statistics of code; `infill` shows that it does not write code yet.
"""

import ml_collections

STEPS = 300


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
  # Adafactor moves a parameter relative to its size; Adam is slow here, as T5's embeddings start at N(0, 1).
  config.optimizer = dict(
    name="adafactor",
    learning_rate=dict(
      name="infinite",
      peak=0.03,
      constant=0.01,
      minimum=1e-3,
      warmup_steps=20,
      cooldown_steps=200,
      anneal_start=240,
      anneal_steps=60,
    ),
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
