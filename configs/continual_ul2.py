"""A language model through three domains that arrive one after the other: English essays, Python source, German help.

What is known after each task is measured on all three, in bits per byte; three ways to run the learning rate, the same
steps for each, under causal language modelling or (:infinite-ul2 and so on) under UL2's mixture:

  sudo apt install anarchism libreoffice-help-de
  ssljax train --config=configs/continual_ul2.py:infinite --workdir=runs/continual_ul2/infinite
  ssljax train --config=configs/continual_ul2.py:repeated_cosine --workdir=runs/continual_ul2/repeated_cosine
  ssljax train --config=configs/continual_ul2.py:constant --workdir=runs/continual_ul2/constant

Tasks:     150 steps each. infinite trains its trunk for 120 steps a task and anneals a side branch for 30, which is
           what is measured; the trunk goes on from before the anneal. Pieces are learnt from the first task's text.
Hardware:  2 CPU cores, 6 to 7 minutes a run.
Numbers:   causal language modelling, held-out bits per byte, means over seeds 0, 1, 2 and their range: average over the
           three tasks at the end, average over those seen while training, and forgetting.

                              average                    average seen               forgetting
           infinite           2.734 [2.704 to 2.750]     2.345 [2.337 to 2.355]     0.928 [0.881 to 0.972]
           repeated_cosine    2.765 [2.740 to 2.781]     2.361 [2.352 to 2.367]     0.974 [0.944 to 1.009]
           constant           2.755 [2.740 to 2.781]     2.380 [2.373 to 2.385]     0.898 [0.876 to 0.939]

           infinite is ahead of repeated_cosine in all three by every seed: docs/continual.md. The variants -ul2 are
           not yet measured.
"""

import ml_collections

STEPS, ANNEAL = 150, 30
PEAK, CONSTANT, MINIMUM = 0.03, 0.015, 1e-3
RATES = {
  "infinite": dict(name="infinite", peak=PEAK, constant=CONSTANT, minimum=MINIMUM, warmup_steps=10, cooldown_steps=60),
  "repeated_cosine": dict(name="repeated_cosine", peak=PEAK, cycle_steps=STEPS, warmup_steps=10, end=MINIMUM),
  "constant": dict(name="wsd", peak=CONSTANT, warmup_steps=10),
}
SOURCES = {
  "english": "text:/usr/share/doc/anarchism/html/*.html",
  "python": "embedded:python",
  "german": "text:/usr/share/libreoffice/help/de/**/*.html",
}


def get_config(variant="infinite"):
  schedule, _, mixture = variant.partition("-")
  config = ml_collections.ConfigDict()
  config.seed = 0
  infinite = schedule == "infinite"
  steps = STEPS - ANNEAL if infinite else STEPS
  config.stream = [dict(name=name, source=source, steps=steps) for name, source in SOURCES.items()]
  config.continual = dict(anneal_steps=ANNEAL if infinite else None)
  config.data = dict(
    batch_size=8,
    text=dict(
      tokenizer="train:2048",
      inputs_length=256,
      row_inputs=512,
      layout="decoder_only",
      mixture=mixture or "causal_lm",
      modes="ul2" if mixture == "ul2" else "absent",
      sentinels=96,
    ),
  )
  config.objective = dict(
    name="ul2.UL2",
    model=dict(name="prefix_lm.PrefixLM", vocab_size=2176, width=192, depth=3, heads=3, head_width=64, hidden=512),
    groups=("R", "S", "X") if mixture == "ul2" else ("C",),
  )
  config.optimizer = dict(name="adafactor", learning_rate=RATES[schedule], clip=1.0)
  config.checkpoint = dict(every=100, keep=1)
  config.log_every = 10
  config.evaluation = dict(
    batch_size=8,
    evals=dict(denoising=dict(name="denoising.BitsPerByte", mixture=mixture or "causal_lm", max_rows=128)),
  )
  return config
