"""MAE on crops of photographs."""

import ml_collections


def get_config():
  return ml_collections.ConfigDict(
    dict(
      seed=0,
      steps=20,
      data=dict(source="embedded:photos", split="train", batch_size=32, image_size=64),
      augment=dict(name="views.Views", recipe="mae", size=32),
      objective=dict(
        name="mae.MAE",
        encoder=dict(name="vit.ViT", variant="Ti", width=64, depth=2, heads=4, patch=4, image_size=32, pooling="mean"),
        decoder_width=64,
        decoder_depth=1,
        decoder_heads=4,
      ),
      optimizer=dict(name="adamw", learning_rate=dict(name="cosine", peak=1e-3, warmup_steps=5, total_steps=20), b2=0.95, weight_decay=0.05),
      checkpoint=dict(every=10),
      log_every=5,
      evaluation=dict(train="train[:500]", test="test[:200]", every=10, evals=dict(knn=dict(name="knn.KNN"), probe=dict(name="linear_probe.LinearProbe", method="ridge"), rank=dict(name="rankme.RankMe"))),
    )
  )
