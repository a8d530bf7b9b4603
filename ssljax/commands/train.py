"""`ssljax train`: train or resume, measure beside the baselines, draw, report."""

import argparse
import contextlib
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any

from ssljax import distributed, runtime
from ssljax.commands import workdir as workdirs
from ssljax.commands.configs import load_config
from ssljax.errors import UserError

PREEMPTED = 75  # exit code: start me again
SCHEDULE = "optimizer.learning_rate"
JUMP = 0.01  # share by which a changed schedule may change the learning rate of the step it takes over at
Origin = tuple[pathlib.Path, int | None]


def run(options: argparse.Namespace) -> int:
  """Returns the exit code of `ssljax train`."""
  config = load_config(options.config, options.overrides)
  if options.stop_on_collapse:
    config = _stopping(config)
  folder = workdirs.prepare(options.workdir)
  origin = _origin(options.origin)
  runtime.start(cpu_devices=options.cpu_devices)
  with together(options, same=config):
    if origin is not None:
      config = continued(config, folder, origin)
    return execute(config, folder, origin=origin, allow=options)


def _stopping(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the config with the alarm of collapse stopping the run.

  Raises:
    UserError: the config has no alarm.
  """
  section = config.get("health")
  if section is None or ("alarm" in section and section["alarm"] is None):
    raise UserError("--stop-on-collapse: the config has no alarm, expected a section health, such as health.every=50")
  return {**config, "health": {**section, "alarm": {**section.get("alarm", {}), "action": "stop"}}}


def together(options: argparse.Namespace, *, same: Mapping[str, Any]) -> contextlib.AbstractContextManager[Any]:
  """Returns the context in which the processes of a run work together, of one config and the same versions."""
  from ssljax.training.config import flatten

  return distributed.joined(
    options.coordinator,
    options.num_processes,
    options.process_id,
    same=flatten(same) | distributed.versions(),
    join_timeout=options.join_timeout,
    lost_timeout=options.lost_timeout,
  )


def execute(
  config: Mapping[str, Any], folder: pathlib.Path, *, origin: Origin | None, allow: argparse.Namespace
) -> int:
  """Returns the exit code of training a config in a work directory: done, preempted, diverged or collapsed.

  Args:
    config: the recipe.
    folder: the work directory.
    origin: checkpoints folder and step of the run whose state a fresh work directory begins with.
    allow: `allow_config_change` and `allow_schedule_change`: what may differ from the run that `folder` holds.
  """
  from ssljax.commands import final, stream
  from ssljax.training import health
  from ssljax.training import run as runs
  from ssljax.training.loop import start, train
  from ssljax.training.watch import Collapsed, Diverged, Preempted

  begun = time.time()
  assembled = runs.assemble(config)
  check_same(folder, assembled.config, allow=allow.allow_config_change)
  _check_vocabulary(origin, assembled.config)
  _say_cut(assembled)
  try:
    if assembled.job.stream:
      stream.run(assembled, folder, origin=origin, allow=allow, begun=begun)
      return 0
    measure, held = final.measure_of(assembled), health.slice_of(assembled)
    state = start(assembled, folder, origin=origin, say=say)
    accept(folder, assembled, int(state.step), allow=allow)
    state = train(assembled, state, folder, measure=measure, health=held)
  except Preempted as stopped:
    say(str(stopped))
    return PREEMPTED
  except Diverged as diverged:
    say(f"error: {diverged}")
    return 1
  except Collapsed as collapsed:
    say(f"error: {collapsed}")
    final.write_report(assembled, folder, begun=begun)
    return 1
  final.finish(assembled, state, measure, folder, begun=begun)
  return 0


def _say_cut(assembled: Any) -> None:
  """Prints how many captions are cut, of each source; nothing where the run reads none."""
  from ssljax.data.captions import count_cut

  if assembled.captioner is not None and distributed.is_main():
    for source in assembled.sources:
      say(count_cut(assembled.captioner, source))


def accept(folder: pathlib.Path, assembled: Any, step: int, *, allow: argparse.Namespace) -> None:
  """Writes config.json, after the learning rate of the run before was compared with the new one at this step.

  Raises:
    UserError: it jumps by more than 1 % and nobody allowed it.
  """
  from ssljax import build
  from ssljax.training.config import differences

  if (folder / "config.json").is_file():
    before = workdirs.read_config(folder)
    if any(line.startswith(SCHEDULE) for line in differences(before, assembled.config)):
      size = before["data"]["batch_size"]
      old = build.build(before["optimizer"], "optim", where="optimizer", batch_size=size).learning_rate
      check_jump(float(old(step)), float(assembled.optimizer.learning_rate(step)), step, allow=allow)
  workdirs.write_json(folder / "config.json", assembled.config)


def check_jump(old: float, new: float, step: int, *, allow: argparse.Namespace) -> None:
  """Prints the learning rate at a step before and after its schedule was changed.

  Raises:
    UserError: they differ by more than 1 % and nobody allowed it.
  """
  say(f"schedule changed: the learning rate at step {step} was {old:.4e} and is {new:.4e}")
  if abs(new - old) > JUMP * abs(old) and not (allow.allow_schedule_change or allow.allow_config_change):
    raise UserError(
      f"optimizer.learning_rate: at step {step} found {new:.4e}, expected {old:.4e} as before, to 1 % "
      "(or --allow-schedule-change)"
    )


def continued(config: dict[str, Any], folder: pathlib.Path, origin: Origin) -> dict[str, Any]:
  """Returns the config of a run that goes on from another: on other data, it reads them from their beginning.

  What was found out when the work directory was made holds for a resume too.
  """
  if (folder / "config.json").is_file():
    begin = workdirs.read_config(folder)["data"].get("begin", 0)
  else:
    before = workdirs.read_config(origin[0].parent)
    same = all(_data(config).get(key) == _data(before).get(key) for key in ("source", "split", "stream"))
    restart = config.get("init_step") == "restart"
    begin = 0 if restart else before["data"].get("begin", 0) if same else _last_step(origin)
  return {**config, "data": {**config["data"], "begin": begin}} if begin else config


def _data(config: Mapping[str, Any]) -> dict[str, Any]:
  data = config.get("data", {})
  return {"source": data.get("source"), "split": data.get("split", "train"), "stream": config.get("stream") or None}


def _last_step(origin: Origin) -> int:
  from ssljax.checkpoint import Checkpoints

  folder, step = origin
  with contextlib.closing(Checkpoints(folder)) as store:
    steps = store.steps()
  return step if step is not None else steps[-1] if steps else 0


def say(text: str) -> None:
  """Prints a line about the run, beside the results on stdout; one process of a run does."""
  if distributed.is_main():
    print(text, file=sys.stderr, flush=True)


def _origin(text: str | None) -> Origin | None:
  if text is None:
    return None
  folder, step = workdirs.split_step(text, "--from")
  return folder / "checkpoints", step


def _check_vocabulary(origin: Origin | None, config: Mapping[str, Any]) -> None:
  """Refuses to continue a text model with ids that mean something else."""
  needed = {"text": "the same tokenizer and data.text.sentinels are"}
  needed |= dict.fromkeys(("captions", "ict"), "the same tokenizer is")
  for key, what in needed.items():
    section = config["data"].get(key)
    if origin is None or not section:
      continue
    before = (workdirs.read_config(origin[0].parent)["data"].get(key) or {}).get("vocabulary")
    if before != section["vocabulary"] and (before or key != "ict"):  # an encoder may come from another kind of run
      raise UserError(
        f"--from: {origin[0].parent} was trained with {before}, this config makes {section['vocabulary']} "
        f"({what} needed)"
      )


def check_same(folder: pathlib.Path, config: Mapping[str, Any], *, allow: bool) -> None:
  """Refuses a work directory whose run was another one."""
  from ssljax.training.config import differences

  if not (folder / "config.json").is_file() or allow:
    return
  before = workdirs.read_config(folder)
  tasks = before.get("stream") or []
  now, joint = list(config.get("stream") or []), (config.get("continual") or {}).get("order") == "joint"
  if tasks and not joint and now[: len(tasks)] == list(tasks):  # tasks that arrived since change nothing before them
    before = {**before, "stream": config["stream"]}
  different = [line for line in differences(before, config) if not line.startswith(SCHEDULE)]
  if different:
    raise UserError(
      f"--workdir: {folder} holds a run of another config: {'; '.join(different)} "
      "(a new folder, or --allow-config-change)"
    )
