"""`ssljax preflight`: what would stop a run on the pod, found here: folder, data, resume point, memory of the chips."""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from ssljax import runtime
from ssljax.commands import workdir as workdirs
from ssljax.commands.configs import load_config
from ssljax.errors import UserError

_UNITS = {"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


def run(options: argparse.Namespace) -> int:
  """Returns the exit code of `ssljax preflight`: 0 where nothing stands in the way, else 2; all checks are made."""
  config = load_config(options.config, options.overrides)
  runtime.start(cpu_devices=options.cpu_devices)
  failed = 0
  for name, check in _checks(config, options):
    try:
      print(f"ok    {name:8}  {check()}", flush=True)
    except UserError as error:
      failed = 2
      print(f"FAIL  {name:8}  {' '.join(str(error).split())}", flush=True)
  return failed


def _checks(config: dict[str, Any], options: argparse.Namespace) -> Iterator[tuple[str, Callable[[], str]]]:
  folder = pathlib.Path(options.workdir)
  found: list[Any] = []
  yield "config", lambda: _config(config, found)
  yield "workdir", lambda: _folder(folder, found)
  if found:
    yield "data", lambda: _data(found[0])
    yield "resume", lambda: _resume(folder, found[0])
  if options.topology:
    yield "plan", lambda: _plan(options)


def _config(config: dict[str, Any], found: list[Any]) -> str:
  """Assembles the run on the devices of this machine: its mesh is that of another one."""
  from ssljax import tree
  from ssljax.training import run as runs

  found.append(runs.assemble({**config, "mesh": {}}))
  return f"{tree.size(found[0].like.params):,} parameters, {_spell(_state_bytes(found[0]))} of state"


def _data(assembled: Any) -> str:
  from ssljax.training.health import slice_of

  job = assembled.job
  slice_of(assembled)
  begun = time.monotonic()
  for step in range(2):
    assembled.stream.batch(job.data.begin + step)
  seconds = (time.monotonic() - begun) / 2
  epoch = assembled.stream.epoch_size
  return (
    f"{job.data.source}: {epoch:,} examples, {epoch / job.data.batch_size:,.0f} steps an epoch; "
    f"a batch of {job.data.batch_size} is read in {seconds:.2f} s by one thread"
  )


def _folder(folder: pathlib.Path, found: list[Any]) -> str:
  workdirs.prepare(str(folder))
  free = shutil.disk_usage(folder).free
  if not found:
    return f"{folder} can be written, {_spell(free)} free"
  size, kept = _state_bytes(found[0]), found[0].job.checkpoint.keep + 1
  if free < kept * size:
    need = f"{_spell(kept * size)} for {kept} checkpoints"
    raise UserError(f"--workdir: {folder} has {_spell(free)} free, expected {need}")
  return f"{folder} can be written, {_spell(free)} free for {kept} checkpoints of {_spell(size)}"


def _resume(folder: pathlib.Path, assembled: Any) -> str:
  from ssljax.checkpoint import Checkpoints
  from ssljax.commands.train import check_same

  if not (folder / "config.json").is_file():
    return "a new run, from step 0"
  check_same(folder, assembled.config, allow=False)
  store = Checkpoints(folder / "checkpoints")
  steps = store.steps()
  store.close()
  return f"goes on from step {steps[-1]} of {assembled.job.steps}" if steps else "no checkpoint yet, from step 0"


def _plan(options: argparse.Namespace) -> str:
  """Asks `ssljax plan` in a process of its own: it has to start jax in another way."""
  flags = [f"--config={options.config}", f"--topology={options.topology}", f"--slices={options.slices}", "--json"]
  flags += [f"--config.{key}={value}" for key, value in options.overrides]
  found = subprocess.run([sys.executable, "-m", "ssljax", "plan", *flags], capture_output=True, text=True, check=False)
  if found.returncode:
    raise UserError((found.stderr.strip().splitlines() or ["plan failed"])[-1].removeprefix("error: "))
  plan = json.loads(found.stdout)
  text = f"{plan['topology']}: {plan['needed_bytes'] / 2**30:.2f} of {plan['hbm_bytes'] / 2**30:.2f} GiB a chip"
  if not plan["fits"]:
    raise UserError(f"does not fit {text}")
  bound = f", at best {plan['roofline_seconds']:.3f} s a step ({plan['bound']})" if plan["bound"] else ""
  return f"fits {text}{bound}"


def _spell(size: int) -> str:
  """Returns bytes as a person reads them: "4.9 GB"."""
  unit = max((unit for unit in ("kB", "MB", "GB", "TB") if size >= _UNITS[unit]), key=_UNITS.get, default="kB")
  return f"{size / _UNITS[unit]:.1f} {unit}"


def _state_bytes(assembled: Any) -> int:
  import jax

  return sum(leaf.size * getattr(leaf.dtype, "itemsize", 8) for leaf in jax.tree.leaves(assembled.like))
