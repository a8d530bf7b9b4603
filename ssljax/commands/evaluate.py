"""`ssljax eval`: the evaluators of a run's config on one of its checkpoints."""

import argparse
import contextlib
import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from ssljax import build, distributed, runtime
from ssljax.commands import train
from ssljax.commands import workdir as workdirs
from ssljax.commands.configs import load_config
from ssljax.errors import UserError, nearest


def run(options: argparse.Namespace) -> int:
  """Returns the exit code of `ssljax eval`; the numbers go to eval/STEP.json and to the terminal.

  Of a stream every task is measured.
  """
  folder, step = workdirs.split_step(options.workdir, "--workdir")
  config = workdirs.read_config(folder)
  section = _chosen(_section(options, config), options.evals)
  other = workdirs.split_step(options.merge, "--merge") if options.merge else None
  runtime.start(cpu_devices=options.cpu_devices)
  with train.together(options, same=config):
    return _run(folder, step, section, other, named=bool(options.evals))


def _run(
  folder: pathlib.Path,
  step: int | None,
  section: dict[str, Any],
  other: tuple[pathlib.Path, int | None] | None,
  *,
  named: bool,
) -> int:
  import jax

  from ssljax.commands import final, finetune

  assembled, step, state = restored(folder, step, section, "--workdir")
  earlier = restored(*other, section, "--merge") if other else None
  with jax.set_mesh(assembled.mesh):
    found, tuned = {}, {}
    for name, part in zip(_names(assembled), assembled.tasks(), strict=True):
      measure = final.measure_of(part)
      scores = _merged(part, state, earlier) if earlier else _scores(measure, state)
      prefix = f"{name}/" if name else ""
      found |= {prefix + key: value for key, value in scores.items()}
      if name and distributed.is_main():
        print(f"on {name}:")
      final.show(scores)
      _draw(measure, folder, state)
      if named and finetune.asked(measure):
        tuned |= {prefix + key: value for key, value in finetune.scores(part, measure, state).items()}
  if tuned:
    finetune.store(tuned, folder, step)
  if tuned and not found:
    return 0
  workdirs.write_json(folder / "eval" / (f"{step}_merged.json" if other else f"{step}.json"), found)
  return 0


def _draw(measure: Any, folder: pathlib.Path, state: Any) -> None:
  """Writes the picture of what is retrieved, where that is measured."""
  from ssljax.commands import final
  from ssljax.evaluators.retrieval import Retrieval
  from ssljax.training.pair_evaluation import PairMeasure

  if isinstance(measure, PairMeasure) and any(isinstance(one, Retrieval) for one in measure.evaluators.values()):
    final.draw_retrieval(measure, state, folder / "pictures")
    if distributed.is_main():
      print(f"picture     {folder / 'pictures' / '4_retrieval.png'}")


def _names(assembled: Any) -> list[str]:
  """Returns the names of the tasks; of a run without a stream an empty one."""
  return [task.name for task in assembled.job.stream] or [""]


def _merged(part: Any, state: Any, earlier: tuple[Any, int, Any]) -> dict[str, float]:
  """Returns flat scores of the features of an earlier state and of this one, side by side, on one task's pictures."""
  from ssljax.commands import final, finetune
  from ssljax.evaluators.class_incremental import merge

  job = part.job
  section = dataclasses.replace(job.evaluation, source=job.evaluation.source or job.data.source)
  before = earlier[0].tasks()[0]
  before = dataclasses.replace(before, job=dataclasses.replace(before.job, evaluation=section))
  measure = final.measure_of(part)
  if trains := finetune.asked(measure):
    raise UserError(f"--merge: found {', '.join(trains)}, expected evaluators of features (--evals)")
  merged = merge(_features(final.measure_of(before), earlier[2]), _features(measure, state))
  return {f"trained/{key}": value for key, value in measure.scores(merged).items()}


def restored(folder: pathlib.Path, step: int | None, section: Mapping[str, Any], flag: str) -> tuple[Any, int, Any]:
  """Returns (run, step, state) of a work directory, with this section of evaluation.

  Raises:
    UserError: no such step, or none at all.
  """
  import jax

  from ssljax.checkpoint import Checkpoints
  from ssljax.training import run as runs

  assembled = runs.assemble({**workdirs.read_config(folder), "evaluation": section})
  with contextlib.closing(Checkpoints(folder / "checkpoints")) as store, jax.set_mesh(assembled.mesh):
    if step is not None and step not in store.steps():
      raise UserError(f"{flag}: {folder} has no step {step}, expected one of {store.steps()}")
    found = store.restore_latest(assembled.like) if step is None else (step, store.restore(step, assembled.like))
  if found is None:
    raise UserError(f"{flag}: no checkpoint in {folder}")
  return assembled, *found


def _features(measure: Any, state: Any) -> Any:
  from ssljax.training.evaluation import Measure

  if not isinstance(measure, Measure):
    raise UserError("--merge: found a model of text, expected two encoders of pictures")
  return measure.features(state)


def _scores(measure: Any, state: Any) -> dict[str, float]:
  """Returns flat scores of a state: as "trained/NAME", of a text model by the evaluators' own names."""
  from ssljax.training.evaluation import Measure
  from ssljax.training.search_evaluation import SearchMeasure

  if isinstance(measure, Measure):
    return {f"trained/{key}": value for key, value in measure(state).items()}
  if isinstance(measure, SearchMeasure):
    return measure.baselines() | measure.beside(state, row="trained")
  return measure(state, when=("always", "once", "asked"))


def _section(options: argparse.Namespace, config: Mapping[str, Any]) -> dict | None:
  """Returns the section of evaluation: the run's, or that of --config."""
  if options.config:
    return load_config(options.config, options.overrides).get("evaluation")
  if options.overrides:
    raise UserError(f"--config.{options.overrides[0][0]}: expected --config=FILE before it, whose evaluation is taken")
  return config.get("evaluation")


def _chosen(section: dict | None, names: str | None) -> dict:
  """Returns the section with the evaluators that are named; one that it lacks has its default settings."""
  if not names:
    if not section:
      raise UserError("eval: the run's config has no evaluation, expected a section with evals (or --evals)")
    return section
  section = {"evals": {}, **(section or {})}
  evals = section["evals"]
  return {**section, "evals": {name: evals.get(name) or _default(name, evals) for name in names.split(",")}}


def _default(name: str, evals: Mapping[str, Any]) -> dict[str, str]:
  """Returns the section of the evaluator of this name, as `file.Class` or as its class' name in small letters."""
  known = build.names("evaluators")
  spell = lambda text: text.partition(".")[2].lower()
  found = [one for one in known if name == one or name.replace("_", "") == spell(one)]
  if len(found) != 1:
    raise UserError(f"--evals: nothing is called {nearest(name, [*evals, *known])}")
  return {"name": found[0]}
