"""MAE through three domains that arrive one after the other: handwritten digits, emoji, crops of photographs.

What is known after each task is measured on all three; three ways to run the learning rate, the same steps for each:

  ssljax train --config=configs/continual_mae.py:infinite --workdir=runs/continual_mae/infinite
  ssljax train --config=configs/continual_mae.py:repeated_cosine --workdir=runs/continual_mae/repeated_cosine
  ssljax train --config=configs/continual_mae.py:constant --workdir=runs/continual_mae/constant

Tasks:     digits (10 classes), emoji (9), photos (60); pictures of 32 pixels, 500 steps each. infinite trains its
           trunk for 400 steps a task and anneals a side branch for 100, which is what is measured; the trunk goes on
           from before the anneal. repeated_cosine warms up and decays anew in each task.
Hardware:  2 CPU cores, 4 to 6 minutes a run.
Numbers:   means over seeds 0, 1, 2 and their range; average over the three tasks at the end, and forgetting (negative:
           old tasks went on to get better). Chance is 0.076; before training kNN is 0.433, the probe 0.550.

           kNN                average                    forgetting
           infinite           0.574 [0.566 to 0.580]     -0.011 [-0.020 to 0.000]
           repeated_cosine    0.568 [0.552 to 0.586]     -0.032 [-0.062 to -0.002]
           constant           0.584 [0.577 to 0.591]     -0.017 [-0.038 to -0.004]

           linear probe
           infinite           0.622 [0.607 to 0.633]      0.005 [-0.020 to 0.022]
           repeated_cosine    0.619 [0.605 to 0.630]     -0.003 [-0.011 to 0.004]
           constant           0.617 [0.613 to 0.621]      0.007 [-0.017 to 0.024]

           No schedule is ahead by more than the seeds differ, and nothing is forgotten: docs/continual.md.
"""

import ml_collections

STEPS, ANNEAL = 500, 100
PEAK, CONSTANT, MINIMUM = 3e-3, 1.5e-3, 1.5e-4
RATES = {
  "infinite": dict(name="infinite", peak=PEAK, constant=CONSTANT, minimum=MINIMUM, warmup_steps=20, cooldown_steps=200),
  "repeated_cosine": dict(name="repeated_cosine", peak=PEAK, cycle_steps=STEPS, warmup_steps=20, end=MINIMUM),
  "constant": dict(name="wsd", peak=CONSTANT, warmup_steps=20),
}


def get_config(variant="infinite"):
  config = ml_collections.ConfigDict()
  config.seed = 0
  infinite = variant == "infinite"
  steps = STEPS - ANNEAL if infinite else STEPS
  config.stream = [dict(name=name, source=f"embedded:{name}", steps=steps) for name in ("digits", "emoji", "photos")]
  config.continual = dict(anneal_steps=ANNEAL if infinite else None)
  config.data = dict(batch_size=128, image_size=32)
  config.augment = dict(name="views.Views", recipe="mae", size=32)
  config.objective = dict(
    name="mae.MAE",
    encoder=dict(name="vit.ViT", variant="Ti", width=96, depth=3, heads=3, patch=4, image_size=32, pooling="mean"),
    decoder_width=48,
    decoder_depth=1,
    decoder_heads=3,
    mask_ratio=0.75,
    norm_pix=True,
  )
  config.optimizer = dict(name="adamw", learning_rate=RATES[variant], b1=0.9, b2=0.95, weight_decay=0.05)
  config.checkpoint = dict(every=100, keep=1)
  config.log_every = 20
  config.evaluation = dict(
    evals=dict(
      knn=dict(name="knn.KNN", k=20, temperature=0.07),
      linear_probe=dict(name="linear_probe.LinearProbe", method="ridge"),
      rankme=dict(name="rankme.RankMe"),
    ),
  )
  return config
