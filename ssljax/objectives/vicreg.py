"""VICReg: two views agree, each number of the embedding varies over the batch, and no two vary together."""

import dataclasses
import math
from typing import final

from ssljax.errors import UserError
from ssljax.losses.redundancy import vicreg
from ssljax.objectives.redundancy import _RedundancyReduction, deviation
from ssljax.schedules import Schedule
from ssljax.types import Array, Batch, LossOutput, Params, State

WEIGHTS = ("invariance", "variance", "covariance")


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class VICReg(_RedundancyReduction):
  """Weighs the distance of the two views' projections, a hinge on their deviations and their squared covariances.

  All three are of all B examples on all devices; the statistics of batch normalisation are each view's own.

  Attributes:
    encoder, projector_hidden, projector_out, projector_layers: the branch; the paper's expander is the default.
    invariance, variance, covariance: weights of the terms of `losses.redundancy.vicreg`.

  Raises:
    UserError: a number out of range; in `init`, a batch without two views or of one example.

  Source: Bardes, Ponce, LeCun, "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning",
    2021, arXiv 2105.04906.
  Differs from the reference: the released code averages the invariance of each device's examples, the same number.
  """

  invariance: float | Schedule = 25.0
  variance: float | Schedule = 25.0
  covariance: float | Schedule = 1.0

  def __post_init__(self):
    super().__post_init__()
    for key in WEIGHTS:
      value = getattr(self, key)
      if not isinstance(value, Schedule) and not 0 <= value < math.inf:
        raise UserError(f"{self._name}: {key} {value}, expected a finite number, 0 or more")

  def loss(self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array) -> LossOutput:
    """Returns `vicreg` of the projections, its terms, and the mean deviation of the projection's numbers."""
    (x, y), state = self._run_views(params, state, batch, rng)
    weights = {key: Schedule.of(getattr(self, key))(step) for key in WEIGHTS}
    terms = vicreg(x["projection"], y["projection"], **weights)
    metrics = {f"vicreg/{key}": terms[key] for key in WEIGHTS} | {"vicreg/deviation": deviation(x["projection"])}
    return LossOutput(loss=terms["total"], state=state, metrics=metrics)
