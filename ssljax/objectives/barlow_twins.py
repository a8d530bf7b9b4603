"""Barlow Twins: the correlations between the embeddings of two views are to be the identity matrix."""

import dataclasses
import math
from typing import final

from ssljax.errors import UserError
from ssljax.losses.redundancy import barlow_twins_terms
from ssljax.objectives.redundancy import _RedundancyReduction, deviation
from ssljax.schedules import Schedule
from ssljax.types import Array, Batch, LossOutput, Params, State


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class BarlowTwins(_RedundancyReduction):
  """Makes each number of the projection the same in both views, and uncorrelated with every other number.

  Batch statistics, those of the loss among them, are of all B examples on all devices, each view's own.

  Attributes:
    encoder, projector_hidden, projector_out, projector_layers: the branch; the paper's projector is the default.
    off_diagonal_weight: of the correlations between different numbers.

  Raises:
    UserError: a number out of range; in `init`, a batch without two views or of one example.

  Source: Zbontar, Jing, Misra, LeCun, Deny, "Barlow Twins: Self-Supervised Learning via Redundancy Reduction", 2021,
    arXiv 2103.03230.
  """

  off_diagonal_weight: float | Schedule = 0.0051

  def __post_init__(self):
    super().__post_init__()
    if not isinstance(self.off_diagonal_weight, Schedule) and not 0 <= self.off_diagonal_weight < math.inf:
      raise UserError(
        f"{self._name}: off_diagonal_weight {self.off_diagonal_weight}, expected a finite number, 0 or more"
      )

  def loss(self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array) -> LossOutput:
    """Returns `barlow_twins` of the projections, its two summands and the deviation of the projection's numbers."""
    (x, y), state = self._run_views(params, state, batch, rng)
    weight = Schedule.of(self.off_diagonal_weight)(step)
    diagonal, others = barlow_twins_terms(x["projection"], y["projection"], off_diagonal_weight=weight)
    metrics = {"barlow_twins/diagonal": diagonal, "barlow_twins/off_diagonal": others}
    metrics["barlow_twins/deviation"] = deviation(x["projection"])
    return LossOutput(loss=diagonal + others, state=state, metrics=metrics)
