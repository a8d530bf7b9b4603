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
ALLOW = argparse.Namespace(allow_config_change=False, allow_schedule_change=False)


def main(coordinator, count, index, devices, steps, folder):
  runtime.start(cpu_devices=int(devices))
  place = (coordinator, int(count), int(index)) if int(count) > 1 else (None, None, None)
  with distributed.joined(*place, same={}, join_timeout=120, lost_timeout=60):
    for name, file in CONFIGS.items():
      changes = [("steps", steps), ("evaluation", "None"), ("mesh.fsdp", "2" if int(devices) > 1 else "1")]
      config = load_config(f"{HERE}/{file}", [*changes, ("fsdp_min_size", "64"), ("checkpoint.every", "100")])
      workdir = pathlib.Path(folder) / name
      workdir.mkdir(parents=True, exist_ok=True)
      assert train.execute(config, workdir, origin=None, allow=ALLOW) == 0


main(*sys.argv[1:])
