"""SimSiam: a view's prediction meets the same network's projection of the other view, which gets no gradient."""

import dataclasses
from typing import Literal, final

import jax

from ssljax.losses.prediction import mean_cosine, unit_std
from ssljax.models.branch import Branch
from ssljax.models.heads import MLPHead
from ssljax.objectives.siamese import _Siamese
from ssljax.types import Array, Batch, LossOutput, Params, State


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class SimSiam(_Siamese):
  """Predicts its own projection of the other view, in both directions.

      z_v  = projector(encoder(view v)),   p_v = predictor(z_v)
      loss = -1/2 (cos(p_0, stop(z_1)) + cos(p_1, stop(z_0)))        the mean over the batch

  Batch statistics are those of one view on all devices. The paper keeps the predictor's learning rate where it begins:
  `optimizer.lr_rules = [("^predictor", RATE)]`.

  `predictor` and `stop_gradient` are there to be left out: without either of them the network comes to say the same of
  all pictures, and "simsiam/std" falls (1: projections point everywhere, 0: all one way).

  Attributes:
    encoder: gives "embedding" f32[B,D] of images.
    projector_width: of the projector's three layers, whose output is normalised.
    predictor_hidden: of the predictor's hidden layer.
    predictor: "mlp", or "none": the projection itself is held to the target.
    stop_gradient: "on", or "off": gradients run through the targets.

  Raises:
    UserError: a number out of range; in `init`, a batch without two views or of one example.

  Source: Chen, He, "Exploring Simple Siamese Representation Learning", 2020, arXiv 2011.10566.
  """

  projector_width: int = 2048
  predictor_hidden: int = 512
  predictor: Literal["mlp", "none"] = "mlp"
  stop_gradient: Literal["on", "off"] = "on"

  def __post_init__(self):
    self._check_sizes("projector_width", "predictor_hidden")
    self._check_choice("predictor", "mlp", "none")
    self._check_choice("stop_gradient", "on", "off")

  @property
  def student(self) -> Branch:
    """Encoder, projector and, where there is one, predictor."""
    width, dtype = self.projector_width, self.encoder.dtype
    predictor = MLPHead(self.predictor_hidden, width, 2, last_bias="present", dtype=dtype)
    projector = MLPHead(width, width, 3, last_norm="plain", dtype=dtype)
    return Branch(self.encoder, projector, predictor if self.predictor == "mlp" else None)

  def loss(self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array) -> LossOutput:
    """Returns minus the mean cosine of both directions, that cosine, and how far the projections spread."""
    del step
    seen, stats = self._see(params, state, batch, rng)
    projections = [view["projection"] for view in seen]
    predictions = [view.get("prediction", view["projection"]) for view in seen]
    targets = jax.lax.stop_gradient(projections) if self.stop_gradient == "on" else projections
    cosine = 0.5 * (mean_cosine(predictions[0], targets[1]) + mean_cosine(predictions[1], targets[0]))
    metrics = {"simsiam/cosine": cosine, "simsiam/std": unit_std(projections[0])}
    return LossOutput(loss=-cosine, state={"stats": stats}, metrics=metrics)
