"""Training through a stream of tasks: each in turn, and after each what is known of all of them.

The trunk trains to the end of a task and is saved there; an annealed side branch (or the trunk itself) is measured on
every task, and the trunk goes on from its own weights and moments. What was measured is in eval/continual.json, so a
run that was stopped anywhere goes on there.
"""

import argparse
import contextlib
import dataclasses
import json
import math
import pathlib
import re

import numpy as np
from rich.console import Console
from rich.table import Table

from ssljax import distributed
from ssljax.checkpoint import Checkpoints
from ssljax.commands import anneal, final, train
from ssljax.commands import workdir as workdirs
from ssljax.evaluators.continual import Better, better_of, summary
from ssljax.evaluators.retrieval import chance_of
from ssljax.training import config as config_lib
from ssljax.training import health
from ssljax.training import run as runs
from ssljax.training.loop import start
from ssljax.training.loop import train as train_loop
from ssljax.training.programs import CompiledStep, compile_steps
from ssljax.training.run import Run
from ssljax.types import TrainState

FILE, BEFORE = "continual.json", "before"


def run(
  assembled: Run, folder: pathlib.Path, *, origin: train.Origin | None, allow: argparse.Namespace, begun: float
) -> None:
  """Trains through the tasks of a stream, measures after each, and writes tables and report.

  Args:
    assembled: the run.
    folder: the work directory.
    origin: as for `loop.start`.
    allow: as for `train.execute`.
    begun: `time.time()` at the start of the command.
  """
  rows = _Tasks(assembled, folder).train(origin, allow)
  names, metrics = [task.name for task in assembled.job.stream], _metrics(rows)
  tables = {metric: _table(rows, names, metric, better) for metric, better in metrics}
  flat = {f"continual/{metric}/{name}": value for metric, table in tables.items() for name, value in table.items()}
  workdirs.write_json(folder / "eval" / "final.json", flat)
  if assembled.job.data.pictures:
    state = start(assembled, folder, say=train.say)
    final.draw(assembled.tasks()[-1], state, folder / "pictures", measure=None, features=None)
  final.write_report(assembled, folder, begun=begun)
  if not distributed.is_main():
    return
  for metric, table in tables.items():
    _show(metric, rows, names, table)
  print(f"evaluation  {folder / 'eval' / FILE}")
  print(f"report      {folder / 'report.html'}")


Rows = dict[str, dict[str, list[float]]]
"""After which task ("before": none), which score, on each task."""


class _Tasks:
  """One run through its tasks."""

  def __init__(self, assembled: Run, folder: pathlib.Path):
    self._run, self._folder = assembled, folder
    self._ends, self._tasks = config_lib.ends(assembled.job), assembled.job.stream
    self._health = health.slice_of(assembled)
    self._measures = [final.measure_of(part) for part in assembled.tasks()] if assembled.job.evaluation else []
    self._compiled: tuple[CompiledStep, ...] = ()
    file = folder / "eval" / FILE
    self._rows: Rows = json.loads(file.read_text("utf-8"))["rows"] if file.is_file() else {}

  def train(self, origin: train.Origin | None, allow: argparse.Namespace) -> Rows:
    """Trains and measures what is missing, task by task; returns all that was measured."""
    state = None
    for number, (task, end) in enumerate(zip(self._tasks, self._ends, strict=True)):
      state = start(self._run, self._folder, origin=origin, say=train.say) if state is None else state
      if number == 0:
        train.accept(self._folder, self._run, int(state.step), allow=allow)
        if int(state.step) == self._run.job.data.begin:
          self._measure(BEFORE, state)
      if int(state.step) < end:
        state = self._until(end, state, f"task {number + 1} of {len(self._tasks)}, {task.name}: to step {end}")
      if self._missing(task.name) and self._run.job.continual.anneal_steps:
        state = None  # the branch's is as large; the trunk is on disk
        self._measure(task.name, self._annealed(number, end))
      elif self._missing(task.name):
        self._measure(task.name, state if int(state.step) == end else self._restored(end))
    return self._rows

  def _until(self, end: int, state: TrainState, text: str) -> TrainState:
    train.say(text)
    self._compiled = self._compiled or compile_steps(self._run, begin=int(state.step))
    part = dataclasses.replace(self._run, job=dataclasses.replace(self._run.job, steps=end))
    return train_loop(part, state, self._folder, health=self._health, compiled=self._compiled)

  def _missing(self, row: str) -> bool:
    return bool(self._measures) and row not in self._rows

  def _annealed(self, number: int, end: int) -> TrainState:
    """Returns the end of the annealed branch of a task."""
    steps, name = self._run.job.continual.anneal_steps, self._tasks[number].name
    assert steps is not None
    out = self._folder / "branches" / f"{number}_{re.sub(r'[^A-Za-z0-9_-]', '_', name)}"
    branch = runs.assemble(anneal.branch(self._run.config, step=end, steps=steps))
    workdirs.write_json(out / "config.json", branch.config)
    state = start(branch, out, origin=(self._folder / "checkpoints", end), say=train.say)
    return train_loop(branch, state, out)

  def _restored(self, end: int) -> TrainState:
    """Returns the trunk at the end of a task that it has left behind."""
    with contextlib.closing(Checkpoints(self._folder / "checkpoints")) as store:
      return store.restore(end, self._run.like)

  def _measure(self, row: str, state: TrainState) -> None:
    """Measures a state on every task and writes what is known."""
    if not self._missing(row):
      return
    train.say(f"measuring {len(self._measures)} tasks")
    scores = [measure(state) for measure in self._measures if measure]
    keys = [key for key in scores[0] if all(key in other for other in scores)]
    self._rows[row] = {key: [float(score[key]) for score in scores] for key in keys}
    names = [task.name for task in self._tasks]
    workdirs.write_json(self._folder / "eval" / FILE, {"tasks": names, "rows": self._rows})


def _metrics(rows: Rows) -> list[tuple[str, Better]]:
  """Returns the scores that have a table, and which of them are better."""
  keys = next(iter(rows.values()), {})
  found = [(key, better_of(key)) for key in keys]
  return [(key, better) for key, better in found if better]


def _table(rows: Rows, tasks: list[str], metric: str, better: Better) -> dict[str, float]:
  """Returns the published measures of one score."""
  matrix = np.array([_padded(row[metric], len(tasks)) for name, row in rows.items() if name in tasks])
  before = np.array(_padded(rows.get(BEFORE, {}).get(metric, []), len(tasks)))
  return summary(matrix, before, better=better)


def _padded(scores: list[float], count: int) -> list[float]:
  """Returns the scores with NaN for the tasks that had not arrived yet."""
  return scores + [math.nan] * (count - len(scores))


def _show(metric: str, rows: Rows, names: list[str], measures: dict[str, float]) -> None:
  table = Table(f"{metric} after", *names)
  shown = {row: scores[metric] for row, scores in rows.items()}
  if found := list(rows.values())[-1].get(chance_of(metric)):
    shown = {"(chance)": found} | shown
  for row, scores in shown.items():
    cells = (f"{score:.3f}" if math.isfinite(score) else "-" for score in _padded(scores, len(names)))
    table.add_row(row, *cells)
  Console().print(table)
  print("  ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in measures.items()))
