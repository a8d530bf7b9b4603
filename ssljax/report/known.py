"""What a run through several tasks knew after each: eval/continual.json as one heat map a score."""

import math
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from ssljax.errors import UserError
from ssljax.evaluators.continual import better_of
from ssljax.report.chart import Style
from ssljax.report.heatmap import heatmap
from ssljax.writer import is_number

MOST = 50  # tasks, and rows


class Known(NamedTuple):
  """One score on every task, after every task.

  Attributes:
    metric: the score's name.
    tasks: the columns.
    rows: what had been trained on: "before", then the tasks in turn.
    scores: f64[R,T]; NaN where a task had not arrived.
    measures: average, forgetting, ... by name, where the run is finished.
  """

  metric: str
  tasks: tuple[str, ...]
  rows: tuple[str, ...]
  scores: np.ndarray
  measures: Mapping[str, float]

  @property
  def style(self) -> Style:
    """Returns how its numbers are shown: shares as percent."""
    return Style("percent" if better_of(self.metric) == "higher" else "number")

  def picture(self) -> Markup:
    """Returns the heat map as SVG."""
    better = better_of(self.metric)
    assert better is not None
    return heatmap(self.scores, rows=self.rows, columns=self.tasks, better=better, unit=self.style.unit)


def read(content: Mapping[str, Any], final: Mapping[str, float], *, path: pathlib.Path) -> list[Known]:
  """Returns the scores of eval/continual.json that have a better and a worse; [] for an empty one.

  Args:
    content: the JSON object.
    final: eval/final.json, which has the measures as "continual/METRIC/NAME".
    path: what errors call the file.

  Raises:
    UserError: it is not what a run writes.
  """
  if not content:
    return []
  tasks, rows = content.get("tasks"), content.get("rows")
  if not isinstance(tasks, list) or not isinstance(rows, dict) or not 0 < len(tasks) <= MOST or len(rows) > MOST + 1:
    raise UserError(f"{path}: found no lists of tasks and rows, expected those of 1 to {MOST} tasks")
  if not all(isinstance(row, dict) for row in rows.values()):
    raise UserError(f"{path}: found a row that is no object, expected one score a task by metric")
  metrics = [metric for metric in next(iter(rows.values()), {}) if better_of(metric)]
  names = tuple(map(str, tasks))
  return [
    Known(
      metric,
      names,
      tuple(map(str, rows)),
      np.array([_scores(row.get(metric), len(tasks), path) for row in rows.values()]),
      {
        key.removeprefix(f"continual/{metric}/").replace("_", " "): value
        for key, value in final.items()
        if key.startswith(f"continual/{metric}/")
      },
    )
    for metric in metrics
  ]


def _scores(found: Any, count: int, path: pathlib.Path) -> list[float]:
  """Returns a row with NaN for the tasks that had not arrived."""
  if not isinstance(found, list) or len(found) > count or not all(is_number(score) for score in found):
    raise UserError(f"{path}: found a row that is not of up to {count} numbers")
  return [float(score) for score in found] + [math.nan] * (count - len(found))
