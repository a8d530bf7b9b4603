"""quickstart_simclr.py with EfficientTrain's schedule on its views: the low frequencies and calm colours first.

  pip install -e ".[data]" && ssljax train --config=configs/quickstart_efficient.py --workdir=runs/efficient

Task:      as in quickstart_simclr.py, in as many steps.
Schedule:  five stages of a fifth of the steps, as in the paper: views of 32, 32, 32, 40, 48 pixels (160, 160, 160, 192
           and 224 there) by the Fourier crop, the jitter's strength in proportion 1, 3, 5, 7, 9.
Hardware:  2 CPU cores.
Numbers:   three seeds (--config.seed=0, 1, 2); 13.5e12 instead of 21.8e12 operations (counted):
                               kNN                 linear probe        RankMe
           trained             .415 .402 .403      .454 .449 .430      21.3 26.1 24.6
           quickstart_simclr   .396 .398 .386      .443 .448 .427      22.6 25.0 11.7
           The steps of seed 0 took 141 s; those of quickstart_simclr 194 s (450 x 128 at its 297 examples/s).
"""

import importlib.util
import pathlib

STEPS = 450


def get_config():
  config = _quickstart().get_config()
  config.steps = STEPS
  views = config.augment.to_dict()
  strength = views["strength"]
  del views["name"]
  stages = [
    dict(until=number * STEPS // 5, bandwidth=bandwidth, strength=round(strength * magnitude / 9, 4))
    for number, bandwidth, magnitude in zip((1, 2, 3, 4), (32, 32, 32, 40), (1, 3, 5, 7), strict=True)
  ]
  config.augment = dict(name="stages.Stages", views=views, stages=stages)
  return config


def _quickstart():
  """The config beside this file."""
  spec = importlib.util.spec_from_file_location("simclr", pathlib.Path(__file__).with_name("quickstart_simclr.py"))
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module
