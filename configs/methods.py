"""Joint-embedding methods side by side: one small network, the same photographs, batches and steps; docs/methods.md.

  pip install -e ".[data]" && ssljax train --config=configs/methods.py:byol --workdir=runs/methods/byol

Variants:  the keys of METHODS below; `python benchmarks/methods.py` trains all of them with three seeds.
Model:     a ViT of 4 layers, 128 wide, patches of 8 pixels; views of 32 pixels, local views of 16.
Hardware:  2 CPU cores, a minute or two a run.
Numbers:   docs/methods.md.
"""

import ml_collections

STEPS, BATCH = 300, 128
ENCODER = dict(name="vit.ViT", variant="Ti", width=128, depth=4, heads=4, patch=8, image_size=32, pooling="mean")
# Colour tells photographs apart, so the jitter is half of SimCLR's on CIFAR-10, and no crop below a fifth.
VIEWS = dict(recipe="simclr_cifar", strength=0.5, crop_scale=(0.2, 1.0))
MULTI_CROP = dict(recipe="swav", strength=0.5, crop_scale=(0.2, 1.0), num_local=4, local_size=16, normalize="none")
ONE_VIEW = dict(recipe="mae")
HEAD = dict(projector_hidden=256, projector_out=64)
SCORES = dict(prototypes=512, head_hidden=256, head_bottleneck=64, decay=0.99)


def get_config(method="simclr"):
  if method not in METHODS:
    raise ValueError(f"expected one of {', '.join(METHODS)}")
  augment, name, fields = METHODS[method]
  peak, rules = RATES.get(method, (1.5e-3, ()))
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.steps = STEPS
  config.data = dict(source="embedded:photos", split="train", batch_size=BATCH, image_size=64)
  config.augment = dict(name="views.Views", size=32) | augment
  config.objective = dict(name=name) | dict(encoder=ENCODER) | fields
  config.optimizer = dict(
    name="adamw",
    learning_rate=dict(name="cosine", peak=peak, warmup_steps=STEPS // 10, total_steps=STEPS),
    lr_rules=rules,
    weight_decay=0.05,
  )
  config.checkpoint = dict(every=STEPS, keep=1)
  config.log_every = 25
  config.health = dict(every=25)
  config.evaluation = dict(
    evals=dict(
      knn=dict(name="knn.KNN", k=20, temperature=0.07),
      linear_probe=dict(name="linear_probe.LinearProbe"),
      rankme=dict(name="rankme.RankMe"),
      feature_std=dict(name="rankme.FeatureStd"),
    ),
  )
  return config


# A learnt predictor has to stay ahead of the network: with one learning rate for both, these end below the untrained
# network (SimSiam) or little above it (BYOL). SimSiam and DINO end lower where they learn faster.
RATES = dict(byol=(1.5e-3, (("^predictor", 0.015),)), simsiam=(3e-4, (("^predictor", 0.01),)), dino=(3e-4, ()))

METHODS = dict(
  simclr=(VIEWS, "simclr.SimCLR", HEAD | dict(projector_layers=2, temperature=0.2)),
  moco_v2=(VIEWS, "moco.MoCo", dict(projector_out=64, queue=1024, temperature=0.2, decay=0.99)),
  moco_v3=(VIEWS, "moco_v3.MoCoV3", HEAD | dict(temperature=0.2, decay=0.99)),
  byol=(VIEWS, "byol.BYOL", HEAD | dict(decay=0.99)),
  simsiam=(VIEWS, "simsiam.SimSiam", dict(projector_width=256, predictor_hidden=64)),
  direct_pred=(VIEWS, "direct_pred.DirectPred", HEAD | dict(decay=0.99, epsilon=0.1)),
  # Nothing scales the correlations: their largest eigenvalue is between 50 and 150 here, not near 1.
  direct_set=(VIEWS, "direct_pred.DirectPred", HEAD | dict(decay=0.99, predictor="direct_set", epsilon=20.0)),
  swav=(MULTI_CROP, "swav.SwAV", HEAD | dict(prototypes=256)),
  # Centred by a running mean, DINO and iBOT end below the untrained network in so few steps.
  dino=(MULTI_CROP, "dino.DINO", SCORES | dict(centering="sinkhorn")),
  ibot=(MULTI_CROP, "ibot.iBOT", SCORES | dict(encoder=ENCODER | dict(mask_token="learnt"), centering="sinkhorn")),
  dinov2=(
    MULTI_CROP,
    "ibot.iBOT",
    SCORES
    | dict(encoder=ENCODER | dict(mask_token="learnt"), heads="separate", centering="sinkhorn", koleo=0.1)
    | dict(masks="stratified", mask_probability=0.5, mask_share=(0.1, 0.5), smallest_block=2),
  ),
  # The first view is the whole picture; a map of 4 x 4 places.
  obow=(
    dict(recipe="obow", strength=0.5, num_local=0),
    "obow.OBoW",
    dict(crops="views", words=1024, inverse_delta=10.0, kappa=5.0, border=0, window=1),
  ),
  barlow_twins=(VIEWS, "barlow_twins.BarlowTwins", dict(projector_hidden=256, projector_out=256)),
  vicreg=(VIEWS, "vicreg.VICReg", dict(projector_hidden=256, projector_out=256)),
  sie=(VIEWS | dict(tell="transforms"), "sie.SIE", dict(equivariant=64, projector_hidden=256, projector_out=256)),
  rotnet=(ONE_VIEW, "rotnet.RotNet", {}),
  sla=(ONE_VIEW, "sla.SLA", dict(num_classes=60)),  # reads the labels
  multi_task=(
    VIEWS,
    "multi_task.MultiTask",
    dict(
      tasks=dict(
        simclr=dict(name="simclr.SimCLR", projector_layers=2, temperature=0.2, **HEAD),
        vicreg=dict(name="vicreg.VICReg", projector_hidden=256, projector_out=256),
      ),
      weights=dict(vicreg=0.05),
    ),
  ),
  mae=(ONE_VIEW, "mae.MAE", dict(decoder_width=64, decoder_depth=2, decoder_heads=4, norm_pix=True)),
)
