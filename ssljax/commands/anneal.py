"""`ssljax anneal`: a copy of a run's constant phase is annealed elsewhere; the run itself is left as it is."""

import argparse
import contextlib
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

from ssljax import runtime
from ssljax.commands import train
from ssljax.commands import workdir as workdirs
from ssljax.errors import UserError, nearest

SCHEDULES = ("infinite", "wsd")  # those that have an anneal


def run(options: argparse.Namespace) -> int:
  """Returns the exit code of `ssljax anneal`."""
  trunk, step = workdirs.split_step(options.workdir, "--workdir")
  config = workdirs.read_config(trunk)
  out = workdirs.prepare(options.out)
  if out.resolve() == trunk.resolve():
    raise UserError(f"--out: found {out}, the run itself, expected another folder")
  runtime.start(cpu_devices=options.cpu_devices)
  with train.together(options, same=config):
    return _run(options, trunk, step, config, out)


def _run(
  options: argparse.Namespace, trunk: pathlib.Path, step: int | None, config: dict[str, Any], out: pathlib.Path
) -> int:
  if step is None and (out / "config.json").is_file():  # the trunk may have gone on since this branch began
    rate = workdirs.read_config(out)["optimizer"]["learning_rate"]
    step = rate.get("anneal_start") if isinstance(rate, Mapping) else None
  step = _newest(trunk) if step is None else step
  return train.execute(
    branch(config, step=step, steps=options.steps, phases=options.phases),
    out,
    origin=(trunk / "checkpoints", step),
    allow=options,
  )


def branch(
  config: Mapping[str, Any], *, step: int, steps: int, phases: Literal["constant", "any"] = "constant"
) -> dict[str, Any]:
  """Returns the config of an annealed branch.

  Its learning rate falls to the schedule's end over `steps` steps from `step` on, and it ends there. Of a stream it
  stays with the task that `step` ended.

  Args:
    config: the resolved config of the trunk.
    step: where the branch begins.
    steps: length of the anneal, in steps.
    phases: where a branch may begin; from another phase than the constant one it falls from that step's value.

  Raises:
    UserError: no steps, a schedule without an anneal, one that already has one, a step outside of its constant phase,
      or joint tasks.
  """
  from ssljax import build

  if steps < 1:
    raise UserError(f"--steps: found {steps}, expected at least 1")
  rate = config["optimizer"]["learning_rate"]
  name = rate.get("name") if isinstance(rate, Mapping) else "constant"
  if name not in SCHEDULES:
    raise UserError(f"optimizer.learning_rate: found {name}, which has no anneal: {nearest(str(name), SCHEDULES)}")
  if rate.get("anneal_start") is not None:
    raise UserError(f"optimizer.learning_rate: found an anneal at step {rate['anneal_start']}, expected a trunk's")
  section = config["optimizer"]
  trunk = build.build(rate, "schedules", where="optimizer.learning_rate")
  if (phase := trunk.phase(step)) != "constant":
    first = rate["warmup_steps"] + rate.get("cooldown_steps", 0)
    if phases != "any":
      raise UserError(
        f"--workdir: step {step} is in the {phase} phase, expected one of the constant phase, which begins at step "
        f"{first} (or --phases=any)"
      )
    rate = _constant_at(rate, float(trunk(step)))
  rate = {**rate, "anneal_start": step, "anneal_steps": steps}
  config = {**config, "optimizer": {**section, "learning_rate": rate}, "steps": step + steps}
  if not config.get("stream"):
    return config
  if config.get("continual", {}).get("order") == "joint":
    raise UserError("continual.order: found joint, expected sequential: a branch stays with the task it ends")
  continual = {key: value for key, value in config.get("continual", {}).items() if key != "anneal_steps"}
  return {**config, "stream": _until(config, step, steps), "continual": continual}


def _constant_at(rate: Mapping[str, Any], value: float) -> dict[str, Any]:
  """Returns the schedule of one that is constant at a value from step 0 on."""
  if rate["name"] == "wsd":
    return {**rate, "warmup_steps": 0, "peak": value, "start": 0.0}
  minimum = min(rate["minimum"], value)
  return {**rate, "warmup_steps": 0, "cooldown_steps": 0, "peak": value, "constant": value, "minimum": minimum}


def _until(config: Mapping[str, Any], step: int, steps: int) -> list[dict[str, Any]]:
  """Returns the tasks up to the one that `step` ends or is in; its last goes on to the end of the anneal."""
  tasks, begin = [], config["data"].get("begin", 0)
  for task in config["stream"]:
    if begin + task["steps"] >= step:
      return [*tasks, {**task, "steps": step + steps - begin}]
    tasks.append(task)
    begin += task["steps"]
  raise UserError(f"--workdir: found step {step}, expected one of the stream's {begin} steps")


def _newest(trunk: pathlib.Path) -> int:
  from ssljax.checkpoint import Checkpoints

  with contextlib.closing(Checkpoints(trunk / "checkpoints")) as store:
    steps = store.steps()
  if not steps:
    raise UserError(f"--workdir: no checkpoint in {trunk}")
  return steps[-1]
