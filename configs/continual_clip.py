"""CLIP through three domains of pairs that arrive one after the other, and four ways to go about it.

  pip install -e ".[data,clip]"
  ssljax train --config=configs/continual_clip.py:sequential --workdir=runs/continual_clip/sequential-0

Ways:      sequential, replay (a quarter of each batch from a reservoir of 200 pairs), ctp (nothing kept but the model
           before), joint (all domains from the beginning).
Data:      emoji with their names: people, the world, signs; 96, 105 and 153 held-out pairs.
Hardware:  2 CPU cores, 60 to 97 s a run.
Numbers:   R@5 at the end, the mean of both directions and of the domains, three seeds; chance 0.044.
           sequential .117 [.103 to .135]   replay .151 [.137 to .163]
           ctp        .140 [.125 to .148]   joint  .175 [.157 to .187]
           More: docs/continual.md.
"""

import ml_collections

STEPS, LENGTH = 120, 16
DOMAINS = ("people", "world", "signs")


def get_config(variant="sequential"):
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.stream = [dict(name=name, source=f"embedded:emoji_pairs-{name}", steps=STEPS) for name in DOMAINS]
  config.continual = dict(order="joint" if variant == "joint" else "sequential", replay=None)
  if variant == "replay":
    config.continual.replay = dict(share=0.25, capacity=200)
  config.data = dict(batch_size=128, image_size=36)
  config.data.captions = dict(tokenizer="clip", length=LENGTH)
  config.augment = dict(name="views.Views", recipe="clip", size=32, crop_scale=(0.4, 1.0), normalize="half")
  image = dict(name="vit.ViT", variant="Ti", width=64, depth=3, heads=2, patch=8, image_size=32, pooling="mean")
  text = dict(name="text_tower.TextTower", vocab_size=49408, length=LENGTH, width=64, depth=2, heads=2)
  clip = dict(
    name="clip.CLIP",
    model=dict(
      name="dual.DualEncoder",
      image=dict(name="dual.Tower", width=64, encoder=image),
      text=dict(name="dual.Tower", width=64, encoder=text),
    ),
  )
  config.objective = dict(name="ctp.CTP", objective=clip, first_momentum=0.9, queue=256) if variant == "ctp" else clip
  config.optimizer = dict(
    name="adamw",
    learning_rate=dict(name="repeated_cosine", peak=5e-4, cycle_steps=STEPS, warmup_steps=20, end=5e-6),
    b1=0.9,
    b2=0.98,
    weight_decay=0.1,
    clip=1.0,
  )
  config.checkpoint = dict(every=STEPS, keep=1)
  config.log_every = 20
  config.evaluation = dict(evals=dict(retrieval=dict(name="retrieval.Retrieval", captions="first")))
  return config
