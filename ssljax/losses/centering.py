"""How a teacher's scores become probabilities that do not collapse: less a running centre, or filled evenly."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from ssljax.errors import UserError, nearest
from ssljax.losses.clustering import sinkhorn
from ssljax.losses.self_distillation import centred_softmax
from ssljax.types import Array, State

Kind = Literal["ema", "sinkhorn"]
KINDS = ("ema", "sinkhorn")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Centering:
  """Makes probabilities of a teacher's scores over prototypes, and keeps what it needs from step to step.

      ema       softmax((scores - center) / T),   then center <- decay * center + (1 - decay) * mean of the scores
      sinkhorn  `clustering.sinkhorn` of the whole batch's scores with epsilon T; nothing is kept

  A step's scores are summed in the state and move the centre when the step is over (`moved`), so that all microbatches
  of a step see the same centre.

  Attributes:
    kind: "ema" (DINO, iBOT) or "sinkhorn" (DINOv2's large models).
    decay: of the centre.
    iterations: turns of Sinkhorn.

  Raises:
    UserError: an unknown kind, a number out of range.

  Source: Caron et al., Emerging Properties in Self-Supervised Vision Transformers, 2021, arXiv 2104.14294; Ruan et al.,
    Weighted Ensemble Self-Supervised Learning, 2022, arXiv 2211.09981 (Sinkhorn for a teacher's scores).
  """

  kind: Kind = "ema"
  decay: float = 0.9
  iterations: int = 3

  def __post_init__(self):
    if self.kind not in KINDS:
      raise UserError(f"centering {nearest(str(self.kind), KINDS)}")
    if not 0 <= self.decay < 1:
      raise UserError(f"center_decay {self.decay}, expected at least 0 and less than 1")
    if self.iterations < 1:
      raise UserError(f"sinkhorn_iterations {self.iterations}, expected at least 1")

  def init(self, prototypes: int) -> State:
    """Returns the state before the first step: "center" f32[K], and the "sum" f32[K] of "rows" f32[] of scores."""
    if self.kind == "sinkhorn":
      return {}
    return {"center": jnp.zeros(prototypes), "sum": jnp.zeros(prototypes), "rows": jnp.zeros(())}

  def __call__(
    self, state: State, scores: Array, *, temperature: float | Array, counted: Array | None = None
  ) -> tuple[Array, State]:
    """Returns probabilities f32[...,K] of the teacher's scores f32[...,K], without gradient, and the next state.

    Args:
      state: of `init`.
      scores: over K prototypes.
      temperature: T.
      counted: bool[...], the rows there are, where some are there to fill up a shape; None: all.
    """
    scores = jax.lax.stop_gradient(scores).astype(jnp.float32)
    rows = scores.reshape(-1, scores.shape[-1])
    there = None if counted is None else counted.reshape(-1)
    if self.kind == "sinkhorn":
      found = sinkhorn(rows, epsilon=temperature, iterations=self.iterations, counted=there)
      return found.reshape(scores.shape), state
    weight = jnp.ones(len(rows)) if there is None else there.astype(jnp.float32)
    seen = {"sum": state["sum"] + jnp.sum(rows * weight[:, None], axis=0), "rows": state["rows"] + jnp.sum(weight)}
    return centred_softmax(scores, state["center"], temperature=temperature), {**state, **seen}

  def moved(self, state: State) -> State:
    """Returns the state after a step: the centre moved by the mean of the scores it saw, the sum empty again."""
    if self.kind == "sinkhorn":
      return state
    mean = state["sum"] / jnp.maximum(state["rows"], 1.0)
    center = jnp.where(state["rows"] > 0, self.decay * state["center"] + (1 - self.decay) * mean, state["center"])
    return {"center": center, "sum": jnp.zeros_like(center), "rows": jnp.zeros_like(state["rows"])}
