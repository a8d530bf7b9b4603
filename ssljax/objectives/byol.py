"""BYOL: a view's prediction meets what a slowly moving copy of the network sees in the other view; no negatives."""

import dataclasses
from typing import Literal, final

import jax

from ssljax.losses.prediction import mean_cosine, normalized_distance, unit_std
from ssljax.models.branch import Branch
from ssljax.models.heads import MLPHead
from ssljax.objectives.siamese import _WithTeacher
from ssljax.schedules import Schedule
from ssljax.types import Array, Batch, LossOutput, Params, State


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class BYOL(_WithTeacher):
  """Predicts the teacher's projection of the other view, in both directions.

      p_v   = predictor(student(view v)),   z_v = teacher(view v)
      loss  = || p_0 - z_1 ||^2 + || p_1 - z_0 ||^2        of unit vectors, the mean over the batch
      teacher <- decay teacher + (1 - decay) student       after the optimiser

  The teacher starts from random parameters of its own. Student and teacher have each their batch statistics, of one
  view on all devices. In the paper the decay grows by `schedules.cosine(peak=0.996, end=1.0)`.

  `predictor` and `stop_gradient` are there to be left out: without either of them the network comes to say the same of
  all pictures, and "byol/std" falls (1: projections point everywhere, 0: all one way).

  Attributes:
    encoder: gives "embedding" f32[B,D] of images.
    projector_hidden, projector_out: widths of projector and predictor, each of two layers.
    predictor: "mlp", or "none": the projection itself is held to the target.
    stop_gradient: "on", or "off": the targets are the student's own projections and gradients run through them.
    decay: of the teacher.

  Raises:
    UserError: a number out of range; in `init`, a batch without two views or of one example.

  Source: Grill, Strub, Altché et al., "Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning", 2020,
    arXiv 2006.07733.
  Differs from the reference: no classifier is trained beside it. Dense layers below a normalisation have no bias.
  """

  projector_hidden: int = 4096
  projector_out: int = 256
  predictor: Literal["mlp", "none"] = "mlp"
  stop_gradient: Literal["on", "off"] = "on"
  decay: float | Schedule = 0.996

  def __post_init__(self):
    self._check_sizes("projector_hidden", "projector_out")
    self._check_choice("predictor", "mlp", "none")
    self._check_choice("stop_gradient", "on", "off")
    self._check_share("decay")

  @property
  def student(self) -> Branch:
    """Encoder, projector and, where there is one, predictor."""
    head = MLPHead(self.projector_hidden, self.projector_out, 2, dtype=self.encoder.dtype)
    return Branch(self.encoder, head, head.clone() if self.predictor == "mlp" else None)

  def init(self, rng: Array, batch: Batch) -> tuple[Params, State]:
    """Returns the student's parameters; its statistics, and a teacher drawn anew."""
    student, teacher = jax.random.split(rng)
    params, state = super().init(student, batch)
    return params, {**state, **self._drawn(teacher, batch)}

  def loss(self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array) -> LossOutput:
    """Returns the sum of both directions, the mean cosine, and how far the student's projections spread."""
    del step
    seen, stats = self._see(params, state, batch, rng)
    predictions = [view.get("prediction", view["projection"]) for view in seen]
    targets, teacher_stats = self._teach(state["teacher"], state, batch["views"])
    if self.stop_gradient == "off":
      targets = [view["projection"] for view in seen]
    crossed = list(zip(predictions, reversed(targets), strict=True))
    metrics = {
      "byol/cosine": sum(mean_cosine(*pair) for pair in crossed) / 2,
      "byol/std": unit_std(seen[0]["projection"]),
    }
    loss = sum(normalized_distance(*pair) for pair in crossed)
    return LossOutput(loss=loss, state={**state, "stats": stats, "teacher_stats": teacher_stats}, metrics=metrics)

  def post_update(self, params: Params, state: State, *, step: Array) -> tuple[Params, State]:
    """Returns the parameters, and the state with the teacher moved."""
    return params, {**state, "teacher": self._follow(params, state, step)}
