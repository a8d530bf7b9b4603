"""When the measures of a held-out slice say that a representation collapses: a function of their history alone."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from ssljax.errors import UserError

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


class History:
  """What was measured so far, as far as the alarm needs it.

  Args:
    alarm: when to say that the run collapses.
  """

  def __init__(self, alarm: Alarm):
    self._alarm = alarm
    self._best: dict[str, tuple[float, int]] = {}
    self._under = 0

  @property
  def collapsed(self) -> bool:
    """Whether the last measurements say so."""
    return self._under >= self._alarm.patience

  def add(self, step: int, measures: Mapping[str, float]) -> str:
    """Returns the alarm's line where it begins with the measures of this step, else ""."""
    for key in NAMES:
      self._best[key] = max(self._best.get(key, (0.0, step)), (measures[key], step), key=lambda pair: pair[0])
    low = [key for key in NAMES if not measures[key] >= getattr(self._alarm, key) * self._best[key][0]]
    self._under = self._under + 1 if low else 0
    if self._under != self._alarm.patience:
      return ""
    return f"step {step}: collapse: {', '.join(spell(key, measures[key], *self._best[key]) for key in low)}"


def spell(key: str, value: float, best: float, step: int) -> str:
  """Returns "RankMe 1.3, 8 % of its best (16.2 at step 10)"."""
  return f"{NAMES[key]} {value:.3g}, {100 * value / best:.0f} % of its best ({best:.3g} at step {step})"
