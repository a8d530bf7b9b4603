"""Learning without forgetting: any objective on a stream of tasks, held near the model of the task before."""

import dataclasses
import math
from collections.abc import Callable
from typing import final

import jax
import jax.numpy as jnp

from ssljax.errors import UserError
from ssljax.losses.distillation import cosine_distance
from ssljax.objectives.wrapper import _Wrapper
from ssljax.schedules import Schedule
from ssljax.types import Array, Batch, LossOutput, Params, State


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class LwF(_Wrapper):
  """Adds to an objective's loss how far the embeddings went from those of the model at the end of the task before.

      loss = objective's loss + weight * mean_b (1 - cos(f_previous(x_b), f(x_b)))

  f is the objective's `encode`; gradients go through f alone. A batch's task is the largest number in its `task`
  int32[B] (replayed rows have smaller ones). Where it is larger than any before, today's model becomes the previous
  one, before it learns from that batch. Task 0 has no model before it: the term is 0 and is not computed.

  Of a batch of views (`views`, no `image`) the first of each example is encoded. The mean is over rows, whatever the
  objective averages; with accumulation it is the mean over microbatches, weighted as the objective weights them (for
  UL2 by predicted tokens).

  Attributes:
    objective: what is learnt on every task.
    weight: of the distance.

  What only the objective has (UL2's `vocab_size`, `nats`, `write`) is found here too.

  Raises:
    UserError: a weight that is negative or not finite.

  Source: Li, Hoiem, "Learning without Forgetting", 2016, arXiv 1606.09282 (the idea, for logits); Singh et al.,
    "Beyond Cosine Decay: On the effectiveness of Infinite Learning Rate Schedule for Continual Pre-training", 2025,
    arXiv 2503.02844 (features of masked autoencoders, weight 1).
  Differs from the reference: whole pictures and one embedding each; the released code compares the tokens left by two
    independent random masks, and its cosine runs along the batch.
  """

  weight: float | Schedule = 1.0

  def __post_init__(self):
    if not isinstance(self.weight, Schedule) and not 0 <= self.weight < math.inf:
      raise UserError(f"lwf.LwF: weight {self.weight}, expected a finite number, 0 or more")

  def imported(self, params: Params, state: State) -> State:
    """Returns the state with the previous model the one that came in."""
    inner = self.objective.imported(params, state["objective"])
    return _state(inner, jax.tree.map(jnp.array, (params, inner)), state["task"])

  def init(self, rng: Array, batch: Batch) -> tuple[Params, State]:
    """Returns the objective's parameters, and its state with the previous model and the task, 0."""
    params, inner = self.objective.init(rng, batch)
    return params, _state(inner, jax.tree.map(jnp.array, (params, inner)), jnp.zeros((), jnp.int32))

  def loss(self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array) -> LossOutput:
    """Returns the objective's loss plus the weighted distance; `weight` is the objective's."""
    inner = state["objective"]
    out = self.objective.loss(params, inner, batch, rng=rng, step=step)
    previous, task = previous_model(params, state, jnp.max(batch["task"]))
    distance = _only_where(task > 0, lambda params: self._distance(params, inner, previous, batch), params)
    return LossOutput(
      loss=out.loss + Schedule.of(self.weight)(step) * distance,
      state=_state(out.state, previous, task),
      metrics=out.metrics | {"lwf/distance": distance},
      weight=out.weight,
    )

  def _distance(self, params: Params, inner: State, previous: tuple[Params, State], batch: Batch) -> Array:
    """Returns the mean distance f32[] between the embeddings of two models, each (parameters, objective's state)."""
    batch = _with_image(batch)
    before = self.objective.encode(*previous, batch)["embedding"]
    return jnp.mean(cosine_distance(before, self.objective.encode(params, inner, batch)["embedding"]))


def _state(inner: State, previous: tuple[Params, State], task: Array) -> State:
  """Returns the state; statistics belong to the parameters they were gathered with, so both are kept."""
  return {"objective": inner, "previous": previous[0], "previous_state": previous[1], "task": task}


def previous_model(params: Params, state: State, current: Array) -> tuple[tuple[Params, State], Array]:
  """Returns the previous model and the largest task so far; where `current` begins a task, it is today's model.

  The state's "previous" and "previous_state" hold parameters and the objective's state, which is in "objective".
  """
  begins = current > state["task"]
  today, kept = (params, state["objective"]), (state["previous"], state["previous_state"])
  previous = jax.tree.map(lambda new, old: jnp.where(begins, new, old), today, kept)
  return jax.lax.stop_gradient(previous), jnp.maximum(current, state["task"])


def _only_where(condition: Array, function: Callable[[Params], Array], params: Params) -> Array:
  """Returns function(params) f32[], or 0 where the condition does not hold: nothing is computed then.

  The gradient is computed in the branch, with the value. Left to the backward pass, a branch not taken would still
  write zeros for all that the branch keeps (a task 0 of 1.8 times the time, measured), and what is kept would lie
  in memory beside the activations of the objective's loss.
  """
  fixed = jax.lax.stop_gradient(params)
  nothing = lambda params: (jnp.zeros((), jnp.float32), jax.tree.map(jnp.zeros_like, params))
  value, gradient = jax.lax.cond(condition, jax.value_and_grad(function), nothing, fixed)
  zeros = jax.tree.map(lambda g, now, then: jnp.sum(g * (now - then)), gradient, params, fixed)
  return value + sum(jax.tree.leaves(zeros))  # 0 in value, `gradient` in gradient


def _with_image(batch: Batch) -> Batch:
  """Returns the batch as `encode` wants it: of several views the first is the image."""
  if "image" in batch or "views" not in batch:
    return batch
  return {**batch, "image": batch["views"][:, 0]}
