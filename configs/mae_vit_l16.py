"""MAE with a ViT-L/16 on ImageNet-1k, the paper's settings (He et al., arXiv 2111.06377, appendix A.1).

  ssljax train --config=configs/mae_vit_l16.py --workdir=runs/mae_l16           1600 epochs
  ssljax train --config=configs/mae_vit_l16.py:800ep --workdir=runs/mae_l16     800 epochs

Data:      imagenet2012 prepared by TFDS as ArrayRecord (pip install "ssljax[tfds]").
Hardware:  meant for a TPU v4-128 or 64 GPUs of 80 GB; nobody has run it on either yet.
Number:    the paper reports 75.8 % linear probe, 85.9 % fine-tuned (1600 epochs). Here: not yet measured.
"""

import importlib.util
import pathlib


def get_config(variant="1600ep"):
  spec = importlib.util.spec_from_file_location("mae_vit_b16", pathlib.Path(__file__).with_name("mae_vit_b16.py"))
  base = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(base)
  config = base.get_config(variant, size="L")
  config.objective.encoder.remat = "full"
  return config
