"""When the measures of a held-out slice say that a representation collapses: a function of their history alone."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from ssljax.errors import UserError

ON = "health/collapse"  # the metric that is 1 while the alarm is on
NAMES = {"rankme": "RankMe", "feature_std": "feature std"}
LEAST = {"rankme": 1.0, "feature_std": 0.0}  # what a measure is when all features are the same


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alarm:
  """When to say that a run collapses.

  A measure is compared with the largest of the run so far, both counted from what they are when all features are the
  same: 1 for RankMe, 0 for the standard deviation of unit features. Projections are looked at, other features only
  where there are none. The defaults lie between what was seen of healthy and of collapsing runs (docs/health.md).

  Attributes:
    rankme: share of the best RankMe under which a run has collapsed.
    projection_std: share of the best standard deviation of projections.
    feature_std: the same of other features, which move more in healthy runs.
    patience: measurements in a row that must be under one of these.
    action: whether the run is warned of, or stopped with its state saved (`ssljax train --stop-on-collapse`).

  Raises:
    UserError: a share outside of [0, 1) or no patience.
  """

  rankme: float = 0.15
  projection_std: float = 0.5
  feature_std: float = 0.25
  patience: int = 2
  action: Literal["warn", "stop"] = "warn"

  def __post_init__(self):
    for key in ("rankme", "projection_std", "feature_std"):
      if not 0 <= getattr(self, key) < 1:
        raise UserError(f"{key}: found {getattr(self, key)}, expected a share, from 0 to below 1")
    if self.patience < 1:
      raise UserError(f"patience: found {self.patience}, expected at least 1")

  def share(self, key: str) -> float:
    """Returns the share of its best that a metric must have, such as "health/projection_feature_std"."""
    if key.endswith("_rankme"):
      return self.rankme
    return self.projection_std if key == "health/projection_feature_std" else self.feature_std


class Best(NamedTuple):
  """The largest value of a measure so far, its step, and the least it can be."""

  value: float
  step: int
  least: float

  def is_under(self, value: float) -> bool:
    """Returns whether a value is better."""
    return value > self.value or math.isnan(self.value)

  def share(self, value: float) -> float:
    """Returns which part of the best is left, 1 where the best is the least there is."""
    return 1.0 if self.value <= self.least else (value - self.least) / (self.value - self.least)


Bests = dict[str, Best]


def watched(row: Mapping[str, float]) -> dict[str, str]:
  """Returns the metrics of a row that the alarm looks at and their kind: {"health/projection_rankme": "rankme", ...}.

  They are those of projections where there are any, since the loss acts there. A projector that normalises its batch
  takes away what all embeddings share, so embeddings may move off together, nearly one direction, in a healthy run.
  """
  found = {key: kind for key in row for kind in NAMES if key.startswith("health/") and key.endswith(f"_{kind}")}
  return {key: kind for key, kind in found.items() if key.startswith("health/projection_")} or found


def _with_row(bests: Bests, step: int, row: Mapping[str, float]) -> Bests:
  return bests | {
    key: Best(row[key], step, LEAST[kind])
    for key, kind in watched(row).items()
    if key not in bests or bests[key].is_under(row[key])
  }


def _line(step: int, row: Mapping[str, float], bests: Bests, alarm: Alarm) -> str:
  """Returns "step 120: collapse: embedding RankMe 1.3, 8 % of its best (16.2 at step 10)", of what is lowest."""
  kinds = watched(row)
  key = min(kinds, key=lambda key: bests[key].share(row[key]) / max(alarm.share(key), 1e-9))
  name = f"{key.removeprefix('health/').removesuffix(kinds[key])}{NAMES[kinds[key]]}".replace("_", " ")
  best = bests[key]
  share = row[key] / best.value if best.value else 0.0
  beside = f"{100 * share:.0f} % of its best ({best.value:.3g} at step {best.step})"
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
    under = any(self._is_under(key, row[key]) for key in watched(row))
    self._under = self._under + 1 if under else 0
    return _line(step, row, self._bests, self._alarm) if self._under == self._alarm.patience else ""

  def _is_under(self, key: str, value: float) -> bool:
    return not self._bests[key].share(value) >= self._alarm.share(key)  # what is not a number is under, too


def told(rows: Iterable[Mapping[str, float]], alarm: Alarm) -> dict[int, str]:
  """Returns {step: line} of the alarms that the records of a run tell of; `alarm` is the run's, or was at its end."""
  bests: Bests = {}
  lines, on = {}, False
  for row in rows:
    if watched(row):
      step, was_on, on = int(row["step"]), on, bool(row.get(ON))
      bests = _with_row(bests, step, row)
      if on and not was_on:
        lines[step] = _line(step, row, bests, alarm)
  return lines
