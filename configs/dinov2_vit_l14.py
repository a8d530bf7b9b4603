"""DINOv2 with a ViT-L/14, the released long setup (Oquab et al., arXiv 2304.07193), here on ImageNet-1k.

  ssljax train --config=configs/dinov2_vit_l14.py --workdir=runs/dinov2_l14        625,000 steps

Data:      imagenet2012 prepared by TFDS as ArrayRecord (pip install "ssljax[tfds]"); the paper's are ImageNet-22k and
           LVD-142M.
Differs:   positions are fixed sines; the MLPs have a GELU and no gate; drop path grows with the depth instead of being
           the same; the patches' head has the bottleneck of the cls tokens' (384, there 256); gradients are clipped by
           the norm of all parameters instead of each network's.
Hardware:  meant for a TPU v5p-256 or better; nobody has run it on one yet.
Number:    the released code reports 82.0 % kNN and 84.5 % linear probe for the same setup on ImageNet-22k.
           Here: not yet measured.
"""

import ml_collections

EPOCH = 1250  # steps: an "epoch" of the released settings, of whatever data
BATCH = 3072


def get_config(variant=""):
  del variant
  steps = 500 * EPOCH
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.steps = steps
  config.data = dict(source="tfds:imagenet2012", split="train", batch_size=BATCH, image_size=384, threads=16)
  config.augment = dict(
    name="views.Views", recipe="dino", size=224, local_size=98, crop_scale=(0.32, 1.0), local_crop_scale=(0.05, 0.32)
  )
  config.objective = dict(
    name="ibot.iBOT",
    encoder=dict(
      name="vit.ViT", variant="L", patch=14, image_size=224, drop_path=0.4, layer_scale=1e-5, mask_token="learnt",
      dtype="bfloat16", remat="full",
    ),
    heads="separate",
    prototypes=131072,
    head_bottleneck=384,
    student_temperature=0.1,
    teacher_temperature=dict(name="linear", peak=0.04, end=0.07, total_steps=30 * EPOCH),
    decay=dict(name="cosine", peak=0.994, end=1.0, total_steps=steps),
    centering="sinkhorn",
    koleo=0.1,
    masks="stratified",
    mask_probability=0.5,
    mask_share=(0.1, 0.5),
    smallest_block=4,
  )  # fmt: skip
  config.optimizer = dict(
    name="adamw",
    learning_rate=dict(
      name="cosine", peak=2e-4, end=1e-6 * (1024 / BATCH) ** 0.5, warmup_steps=80 * EPOCH, total_steps=steps
    ),
    scale="sqrt",  # times root of batch / 1024
    base_batch_size=1024,
    weight_decay=dict(name="cosine", peak=0.04, end=0.2, total_steps=steps),
    lr_multipliers=(("patch_embed", 0.2),),
    clip=3.0,
    hold=(("prototypes", EPOCH),),
  )
  config.checkpoint = dict(every=5000, keep=2, keep_every=50_000)
  config.log_every = 50
  config.evaluation = dict(
    train="train[:100000]",
    test="validation",
    every=25_000,
    batch_size=2048,
    evals=dict(
      knn=dict(name="knn.KNN", k=20),
      linear_probe=dict(name="linear_probe.LinearProbe"),
      rankme=dict(name="rankme.RankMe"),
    ),
  )
  return config
