"""`ssljax eval`: the evaluators of a run's config on one of its checkpoints."""

import argparse
import contextlib
from typing import Any

from ssljax import runtime
from ssljax.commands import workdir as workdirs
from ssljax.errors import UserError, nearest


def run(options: argparse.Namespace) -> int:
  """Returns the exit code of `ssljax eval`; the numbers go to eval/STEP.json and to the terminal."""
  folder, step = workdirs.split_step(options.workdir, "--workdir")
  config = workdirs.read_config(folder)
  config["evaluation"] = _chosen(config.get("evaluation"), options.evals)
  runtime.start(cpu_devices=options.cpu_devices)

  import jax

  from ssljax.checkpoint import Checkpoints
  from ssljax.commands import final
  from ssljax.training import run as runs

  assembled = runs.assemble(config)
  with contextlib.closing(Checkpoints(folder / "checkpoints")) as store, jax.set_mesh(assembled.mesh):
    if step is not None and step not in store.steps():
      raise UserError(f"--workdir: {folder} has no step {step}, expected one of {store.steps()}")
    found = store.restore_latest(assembled.like) if step is None else (step, store.restore(step, assembled.like))
    if found is None:
      raise UserError(f"--workdir: no checkpoint in {folder}")
    scores = _scores(final.measure_of(assembled), found[1])
  workdirs.write_json(folder / "eval" / f"{found[0]}.json", scores)
  final.show(scores)
  return 0


def _scores(measure: Any, state: Any) -> dict[str, float]:
  """Returns flat scores of a state: of features as "trained/NAME", of a text model by the evaluators' own names."""
  from ssljax.training.evaluation import Measure

  if isinstance(measure, Measure):
    return {f"trained/{key}": value for key, value in measure(state).items()}
  return measure(state, when=("always", "once", "asked"))


def _chosen(section: dict | None, names: str | None) -> dict:
  if not section:
    raise UserError("eval: the run's config has no evaluation, expected a section with evals")
  if not names:
    return section
  chosen = names.split(",")
  for name in chosen:
    if name not in section["evals"]:
      raise UserError(f"--evals: nothing is called {nearest(name, section['evals'])}")
  return {**section, "evals": {name: section["evals"][name] for name in chosen}}
