"""`ssljax train`: train or resume, measure beside the baselines, draw, report."""

import argparse
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any

from ssljax import runtime
from ssljax.commands import workdir as workdirs
from ssljax.commands.configs import load_config
from ssljax.errors import UserError

PREEMPTED = 75  # exit code: start me again


def run(options: argparse.Namespace) -> int:
  """Returns the exit code of `ssljax train`."""
  begun = time.time()
  config = load_config(options.config, options.overrides)
  folder = workdirs.prepare(options.workdir)
  origin = _origin(options.origin)
  runtime.start(cpu_devices=options.cpu_devices)

  from ssljax.commands import final
  from ssljax.training import run as runs
  from ssljax.training.loop import start, train
  from ssljax.training.watch import Diverged, Preempted

  assembled = runs.assemble(config)
  _check_same(folder, assembled.config, allow=options.allow_config_change)
  _check_vocabulary(origin, assembled.config)
  measure = final.measure_of(assembled)
  state = start(assembled, folder, origin=origin, say=say)
  workdirs.write_json(folder / "config.json", assembled.config)
  try:
    state = train(assembled, state, folder, measure=measure)
  except Preempted as stopped:
    print(stopped)
    return PREEMPTED
  except Diverged as diverged:
    print(f"error: {diverged}", file=sys.stderr)
    return 1
  final.finish(assembled, state, measure, folder, begun=begun)
  return 0


def say(text: str) -> None:
  """Prints a line about the run, beside the results on stdout."""
  print(text, file=sys.stderr, flush=True)


def _origin(text: str | None) -> tuple[pathlib.Path, int | None] | None:
  if text is None:
    return None
  folder, step = workdirs.split_step(text, "--from")
  return folder / "checkpoints", step


def _check_vocabulary(origin: tuple[pathlib.Path, int | None] | None, config: Mapping[str, Any]) -> None:
  """Refuses to continue a text model with ids that mean something else."""
  text = config["data"].get("text")
  if origin is None or not text:
    return
  before = (workdirs.read_config(origin[0].parent)["data"].get("text") or {}).get("vocabulary")
  if before != text["vocabulary"]:
    raise UserError(
      f"--from: {origin[0].parent} was trained with {before}, this config makes {text['vocabulary']} "
      "(the same tokenizer and data.text.sentinels are needed)"
    )


def _check_same(folder: pathlib.Path, config: Mapping[str, Any], *, allow: bool) -> None:
  """Refuses a work directory whose run was another one."""
  from ssljax.training.config import differences

  if not (folder / "config.json").is_file() or allow:
    return
  different = differences(workdirs.read_config(folder), config)
  if different:
    raise UserError(
      f"--workdir: {folder} holds a run of another config: {'; '.join(different)} "
      "(a new folder, or --allow-config-change)"
    )
