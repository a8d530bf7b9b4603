"""The one training step. It knows no method."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ssljax import rng, sharding, transforms
from ssljax.training.config import Rules
from ssljax.types import Array, Batch, LossOutput, Objective, Params, State, TrainState

Augment = Callable[[Array, Batch], Batch]
Gradients = tuple[LossOutput, Params]


def make_step(
  objective: Objective,
  augment: Augment,
  transform: optax.GradientTransformationExtraArgs,
  *,
  accumulate: int = 1,
  frozen: Rules = (),
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]:
  """Returns step(state, host batch) -> (state, metrics), to be jitted with the state donated.

  Augmentation runs inside the step on keys of (seed, position in the stream). A step whose loss or gradient is not
  finite changes nothing but the step count ("train/skipped" is then 1).

  Args:
    objective: the method.
    augment: (keys[B], batch) -> batch, on the device.
    transform: the optimiser.
    accumulate: microbatches a step; they are averaged by their `LossOutput.weight`.
    frozen: as for `transforms.freeze`, which the optimiser has from elsewhere: of what they freeze no gradient is
      computed.
  """

  def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
    keys = rng.example_keys(rng.use_key(state.rng, rng.AUGMENT), batch["index"])
    batch = jax.tree.map(sharding.constrain, augment(keys, batch))
    out, gradients = _gradients(objective, state, batch, accumulate, frozen)
    norm = optax.tree.norm(gradients)
    finite = jnp.isfinite(out.loss) & jnp.isfinite(norm)

    updates, opt_state = transform.update(gradients, state.opt_state, state.params, step=state.step)
    params = optax.apply_updates(state.params, updates)
    params, objective_state = objective.post_update(params, out.state, step=state.step)
    moved = state.replace(params=params, opt_state=opt_state, objective_state=objective_state)
    kept = jax.tree.map(lambda new, old: _select(finite, new, old), moved, state)

    metrics = {"train/loss": out.loss, "train/grad_norm": norm, "train/skipped": 1.0 - finite} | out.metrics
    return kept.replace(step=state.step + 1), metrics

  return step


def _select(finite: Array, new: Array, old: Array) -> Array:
  return old if new is old else jnp.where(finite, new, old)


def _gradients(objective: Objective, state: TrainState, batch: Batch, accumulate: int, frozen: Rules) -> Gradients:
  """Returns the loss output and gradients of a batch, over `accumulate` microbatches."""
  key = rng.use_key(state.rng, rng.LOSS)

  def loss(params: Params, objective_state: State, part: Batch) -> tuple[Array, LossOutput]:
    params = transforms.without_gradient(params, frozen)
    out = objective.loss(params, objective_state, part, rng=key, step=state.step)
    return out.loss, out

  gradient = jax.value_and_grad(loss, has_aux=True)
  if accumulate == 1:
    (_, out), gradients = gradient(state.params, state.objective_state, batch)
    return out, gradients

  def one(carry: tuple[State, Any], part: Batch) -> tuple[tuple[State, Any], None]:
    objective_state, total = carry
    (_, out), gradients = gradient(state.params, objective_state, part)
    weight = jnp.asarray(out.weight, jnp.float32)
    sums = jax.tree.map(lambda x: weight * x, (gradients, out.loss, out.metrics))
    return (out.state, jax.tree.map(jnp.add, total, (*sums, weight))), None

  parts = jax.tree.map(lambda x: _microbatches(x, accumulate), batch)
  shapes = jax.eval_shape(gradient, state.params, state.objective_state, jax.tree.map(lambda x: x[0], parts))
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (shapes[1], shapes[0][0], shapes[0][1].metrics))
  start = (state.objective_state, (*zeros, jnp.zeros((), jnp.float32)))
  (objective_state, (*sums, weight)), _ = jax.lax.scan(one, start, parts)
  gradients, value, metrics = jax.tree.map(lambda x: x / weight, tuple(sums))
  return LossOutput(loss=value, state=objective_state, metrics=metrics, weight=weight), gradients


def _microbatches(x: Array, count: int) -> Array:
  """Returns x[B, ...] as [count, B/count, ...]; example j goes to microbatch j % count.

  Taken in strides so that each device cuts up the rows it holds: in blocks, a microbatch would lie on few devices.
  """
  return jnp.swapaxes(x.reshape(-1, count, *x.shape[1:]), 0, 1)
