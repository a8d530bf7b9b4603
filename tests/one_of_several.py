"""One process of several, through several configs: one_of_several.py COORDINATOR COUNT INDEX DEVICES STEPS DIR.

What `ssljax train` does for one config; starting Python and jax anew for each would take most of the time.
"""

import argparse
import pathlib
import sys

from ssljax import distributed, runtime
from ssljax.commands import train
from ssljax.commands.configs import load_config

HERE = pathlib.Path(__file__).parent
CONFIGS = {"mae": "tiny_config.py:recorder", "simclr": "tiny_config.py:simclr", "ul2": "tiny_text_config.py:bare"}
# Adam would make rounding as large as a step where a gradient is zero but for rounding (the bias of keys).
OPTIMIZER = "{'name': 'sgd', 'learning_rate': 0.002, 'momentum': 0.9, 'ema': 0.9}"
ALLOW = argparse.Namespace(allow_config_change=False, allow_schedule_change=False)


def main(coordinator, count, index, devices, steps, folder):
  runtime.start(cpu_devices=int(devices))
  place = (coordinator, int(count), int(index)) if int(count) > 1 else (None, None, None)
  with distributed.joined(*place, same={}, join_timeout=120, lost_timeout=60):
    for name, file in CONFIGS.items():
      changes = [("steps", steps), ("evaluation", "None"), ("mesh.fsdp", "2" if int(devices) > 1 else "1")]
      changes += [("fsdp_min_size", "64"), ("checkpoint.every", "100"), ("optimizer", OPTIMIZER)]
      if name == "simclr":
        changes += [("health", "{'every': 2, 'examples': 7, 'alarm': {'action': 'stop'}}")]
      config = load_config(f"{HERE}/{file}", changes)
      workdir = pathlib.Path(folder) / name
      workdir.mkdir(parents=True, exist_ok=True)
      assert train.execute(config, workdir, origin=None, allow=ALLOW) == 0


main(*sys.argv[1:])
