"""A run of seconds: MAE on random pictures from a file; the tests override what they need."""

import os


def get_config(variant=""):
  folder = os.environ["SSLJAX_TEST_DATA"]
  encoder = dict(name="vit.ViT", variant="Ti", width=16, depth=2, heads=2, patch=4, image_size=16, drop_path=0.1)
  evaluation = dict(
    train="train[:40]",
    test="test",
    batch_size=16,
    evals=dict(
      knn=dict(name="knn.KNN", k=5),
      linear_probe=dict(name="linear_probe.LinearProbe", method="ridge"),
      rankme=dict(name="rankme.RankMe"),
    ),
  )
  head = dict(decoder_width=16, decoder_depth=1, decoder_heads=2)
  simclr = variant == "simclr"
  return dict(
    seed=3,
    steps=4,
    data=dict(source=f"npz:{folder}/pictures.npz", batch_size=16, image_size=20),
    augment=dict(name="views.Views", recipe="simclr" if simclr else "mae", size=16),
    objective=dict(
      name={"recorder": "recorder:Recorder", "simclr": "simclr.SimCLR"}.get(variant, "mae.MAE"),
      encoder=encoder,
      **(dict(projector_out=8) if simclr else head),
    ),
    optimizer=dict(
      name="adamw",
      learning_rate=dict(name="infinite", peak=2e-3, constant=1e-3, minimum=1e-4, warmup_steps=5, cooldown_steps=5),
      b2=0.95,
      weight_decay=0.05,
      ema=0.9,
    ),
    checkpoint=dict(every=5, keep=3),
    log_every=1,
    evaluation=None if variant else evaluation,
  )
