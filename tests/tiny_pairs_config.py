"""A run of seconds on pictures with captions from a file: CLIP with two tiny towers."""

import os


def get_config(variant=""):
  del variant
  folder = os.environ["SSLJAX_TEST_DATA"]
  image = dict(name="vit.ViT", variant="Ti", width=16, depth=1, heads=2, patch=8, image_size=16)
  text = dict(name="text_tower.TextTower", vocab_size=259, eos=1, length=12, width=16, depth=1, heads=2)
  return dict(
    seed=3,
    steps=2,
    data=dict(
      source=f"pairs:{folder}/pairs.jsonl",
      split="all",
      batch_size=8,
      image_size=20,
      captions=dict(tokenizer="bytes", length=12),
    ),
    augment=dict(name="views.Views", recipe="mae", size=16),
    objective=dict(
      name="clip.CLIP",
      model=dict(
        name="dual.DualEncoder",
        image=dict(name="dual.Tower", width=8, encoder=image),
        text=dict(name="dual.Tower", width=8, encoder=text),
      ),
    ),
    optimizer=dict(name="adamw", learning_rate=dict(name="constant", value=1e-3)),
    log_every=1,
  )
