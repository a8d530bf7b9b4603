"""DirectPred: BYOL whose linear predictor is computed from the correlation of projections, not learnt."""

import dataclasses
from typing import Literal, final

import jax
import jax.numpy as jnp

from ssljax import precision, sharding
from ssljax.losses.prediction import mean_cosine, unit_std
from ssljax.models.branch import Branch
from ssljax.models.heads import MLPHead
from ssljax.objectives.siamese import _WithTeacher
from ssljax.schedules import Schedule
from ssljax.types import Array, Batch, LossOutput, Params, State

FLOOR = 1e-4  # smallest eigenvalue of a predictor, before the root where epsilon is inside


def direct_pred(correlation: Array, *, epsilon: float, where: Literal["outside", "inside"] = "outside") -> Array:
  """Returns the predictor f32[P,P] with the eigenvectors of the correlation and new eigenvalues (equation 18).

      F = U diag(s) U^T,   r = max(s, 0) / max(s),   W = U diag(p) U^T
      p = max(sqrt(r) + epsilon, 1e-4)      outside
      p = sqrt(max(r + epsilon, 1e-4))      inside

  Args:
    correlation: f32[P,P], F.
    epsilon: what small eigenvalues are raised by.
    where: whether it is added outside of the root or inside.
  """
  values, vectors = jnp.linalg.eigh(correlation)
  ratio = jnp.maximum(values, 0.0) / values[-1]
  if where == "outside":
    new = jnp.maximum(jnp.sqrt(ratio) + epsilon, FLOOR)
  else:
    new = jnp.sqrt(jnp.maximum(ratio + epsilon, FLOOR))
  return _product(vectors * new, vectors.T)


def direct_set(correlation: Array, *, epsilon: float) -> Array:
  """Returns F + epsilon I f32[P,P]: no eigenvalues, and no scaling of F, as in the released code."""
  return correlation + epsilon * jnp.eye(len(correlation))


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class DirectPred(_WithTeacher):
  """Predicts the teacher's projection of the other view by a matrix that follows from the projections themselves.

      f_v  = student(view v),   p_v = W f_v,   z_v = teacher(view v)
      loss = -2 cos(p_0, z_1) - 2 cos(p_1, z_0)                         the mean over the batch
      F   <- correlation_decay F + (1 - correlation_decay) mean of f f^T over both views, at first that mean
      W   <- direct_pred(F) or direct_set(F), every `every` steps       after the loss, no gradient
      teacher <- decay teacher + (1 - decay) student                    after the optimiser

  W and F are state; W is the identity until the first loss. Batch statistics are as in `byol.BYOL`, and so is the
  teacher's start.

  Attributes:
    encoder: gives "embedding" f32[B,D] of images.
    projector_hidden, projector_out: widths of the projector's two layers.
    predictor: "direct_pred" or "direct_set" (also called DirectCopy).
    epsilon: what small eigenvalues are raised by: of `direct_pred` after the largest was made 1; of `direct_set` in the
      unit of F, which nothing scales (the largest eigenvalue of a small ViT's projections came to 50 to 150).
    epsilon_place: added "outside" of the root or "inside"; of `direct_pred` alone.
    every: steps between two computations of W.
    correlation_decay: of F.
    decay: of the teacher.

  Raises:
    UserError: a number out of range; in `init`, a batch without two views or of one example.

  Source: Tian, Chen, Ganguli, "Understanding self-supervised Learning Dynamics without Contrastive Pairs", 2021, arXiv
    2102.06810; Wang, Chen, Du, Tian, "Towards Demystifying Representation Learning with Non-contrastive
    Self-supervision", 2021, arXiv 2110.04947 (DirectSet).
  Differs from the reference: between two computations W stays, there the optimiser moves it; it begins as the identity,
    there random. Its projector's hidden normalisation has scale and bias.
  """

  projector_hidden: int = 512
  projector_out: int = 128
  predictor: Literal["direct_pred", "direct_set"] = "direct_pred"
  epsilon: float = 0.01
  epsilon_place: Literal["outside", "inside"] = "outside"
  every: int = 1
  correlation_decay: float = 0.3
  decay: float | Schedule = 0.996

  def __post_init__(self):
    self._check_sizes("projector_hidden", "projector_out", "every")
    self._check_choice("predictor", "direct_pred", "direct_set")
    self._check_choice("epsilon_place", "outside", "inside")
    self._check_share("correlation_decay")
    self._check_share("decay")

  @property
  def student(self) -> Branch:
    """Encoder and projector; the predictor has no parameters."""
    projector = MLPHead(self.projector_hidden, self.projector_out, 2, last_bias="present", dtype=self.encoder.dtype)
    return Branch(self.encoder, projector)

  def init(self, rng: Array, batch: Batch) -> tuple[Params, State]:
    """Returns the student's parameters; its statistics, a teacher drawn anew, "correlation" and "predictor"."""
    student, teacher = jax.random.split(rng)
    params, state = super().init(student, batch)
    matrices = {"correlation": jnp.zeros((self.projector_out,) * 2), "predictor": jnp.eye(self.projector_out)}
    return params, {**state, **self._drawn(teacher, batch), **matrices}

  def loss(self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array) -> LossOutput:
    """Returns minus twice the sum of both directions' cosines, their mean, and how far the projections spread."""
    seen, stats = self._see(params, state, batch, rng)
    projections = [view["projection"] for view in seen]
    targets, teacher_stats = self._teach(state["teacher"], state, batch["views"])
    predict = lambda x: precision.dot(x, state["predictor"].T, dtype=self.encoder.dtype)
    cosines = [mean_cosine(predict(x), z) for x, z in zip(projections, reversed(targets), strict=True)]
    metrics = {"direct_pred/cosine": sum(cosines) / 2, "direct_pred/std": unit_std(projections[0])}
    matrices = self._matrices(state, jax.lax.stop_gradient(projections), step)
    moved = {**state, "stats": stats, "teacher_stats": teacher_stats, **matrices}
    return LossOutput(loss=-2 * sum(cosines), state=moved, metrics=metrics)

  def _matrices(self, state: State, projections: list[Array], step: Array) -> State:
    """Returns the next correlation and predictor."""
    found = sum(_product(x.T, x) / len(x) for x in projections) / len(projections)
    held = sharding.whole(state["correlation"])
    first = jnp.trace(held) == 0
    moved = jnp.where(first, found, held + (1 - self.correlation_decay) * (found - held))
    due = first | (step % self.every == 0)
    predictor = jax.lax.cond(due, self._predictor, lambda _: sharding.whole(state["predictor"]), sharding.whole(moved))
    return {"correlation": moved, "predictor": predictor}

  def _predictor(self, correlation: Array) -> Array:
    if self.predictor == "direct_set":
      return direct_set(correlation, epsilon=self.epsilon)
    return direct_pred(correlation, epsilon=self.epsilon, where=self.epsilon_place)

  def post_update(self, params: Params, state: State, *, step: Array) -> tuple[Params, State]:
    """Returns the parameters, and the state with the teacher moved."""
    return params, {**state, "teacher": self._follow(params, state, step)}


def _product(a: Array, b: Array) -> Array:
  return jnp.matmul(a, b, precision="highest")
