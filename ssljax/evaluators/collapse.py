"""When the measures of a held-out slice say that a representation collapses: a function of their history alone."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from ssljax.errors import UserError

ON = "health/collapse"  # the metric that is 1 while the alarm is on
NAMES = {"rankme": "RankMe", "feature_std": "feature std"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alarm:
  """When to say that a run collapses.

  Attributes:
    rankme: share of the largest RankMe of the run under which it has collapsed.
    feature_std: the same for the standard deviation of unit features.
    patience: measurements in a row that must be under one of them.
    action: whether the run is warned of, or stopped with its state saved (`ssljax train --stop-on-collapse`).

  Raises:
    UserError: a share outside of [0, 1) or no patience.
  """

  rankme: float = 0.25
  feature_std: float = 0.25
  patience: int = 2
  action: Literal["warn", "stop"] = "warn"

  def __post_init__(self):
    for key in NAMES:
      if not 0 <= getattr(self, key) < 1:
        raise UserError(f"{key}: found {getattr(self, key)}, expected a share, from 0 to below 1")
    if self.patience < 1:
      raise UserError(f"patience: found {self.patience}, expected at least 1")


class Best(NamedTuple):
  """The largest value of a measure so far, and its step."""

  value: float
  step: int

  def is_under(self, value: float) -> bool:
    """Returns whether a value is better."""
    return value > self.value or math.isnan(self.value)

  def share(self, value: float) -> float:
    """Returns value / best."""
    return value / self.value if self.value else 0.0


Bests = dict[str, Best]


def watched(row: Mapping[str, float]) -> dict[str, str]:
  """Returns the metrics of a row that the alarm looks at and their kind: {"health/embedding_rankme": "rankme", ...}."""
  return {key: kind for key in row for kind in NAMES if key.startswith("health/") and key.endswith(f"_{kind}")}


def _with_row(bests: Bests, step: int, row: Mapping[str, float]) -> Bests:
  return bests | {
    key: Best(row[key], step) for key in watched(row) if key not in bests or bests[key].is_under(row[key])
  }


def _line(step: int, row: Mapping[str, float], bests: Bests) -> str:
  """Returns "step 120: collapse: embedding RankMe 1.3, 8 % of its best (16.2 at step 10)", of what is lowest."""
  kinds = watched(row)
  key = min(kinds, key=lambda key: bests[key].share(row[key]))
  name = f"{key.removeprefix('health/').removesuffix(kinds[key])}{NAMES[kinds[key]]}".replace("_", " ")
  best = bests[key]
  beside = f"{100 * best.share(row[key]):.0f} % of its best ({best.value:.3g} at step {best.step})"
  return f"step {step}: collapse: {name} {row[key]:.3g}, {beside}"


class History:
  """What was measured so far, as far as the alarm needs it.

  Args:
    alarm: when to say that the run collapses.
  """

  def __init__(self, alarm: Alarm):
    self._alarm = alarm
    self._bests: Bests = {}
    self._under = 0

  @property
  def collapsed(self) -> bool:
    """Whether the last measurements say so."""
    return self._under >= self._alarm.patience

  def add(self, step: int, row: Mapping[str, float]) -> str:
    """Returns the alarm's line where it begins with the measures of this step, else ""."""
    self._bests = _with_row(self._bests, step, row)
    under = any(self._is_under(key, kind, row[key]) for key, kind in watched(row).items())
    self._under = self._under + 1 if under else 0
    return _line(step, row, self._bests) if self._under == self._alarm.patience else ""

  def _is_under(self, key: str, kind: str, value: float) -> bool:
    return not value >= getattr(self._alarm, kind) * self._bests[key].value  # what is not a number is under, too


def told(rows: Iterable[Mapping[str, float]]) -> dict[int, str]:
  """Returns {step: line} of the alarms that the records of a run tell of, by step."""
  bests: Bests = {}
  lines, on = {}, False
  for row in rows:
    if watched(row):
      step, was_on, on = int(row["step"]), on, bool(row.get(ON))
      bests = _with_row(bests, step, row)
      if on and not was_on:
        lines[step] = _line(step, row, bests)
  return lines
