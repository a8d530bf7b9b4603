"""What an objective makes of pictures as they come from the host: whole ones, and two views of each."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from ssljax import rng, sharding
from ssljax.errors import UserError, nearest
from ssljax.types import Array, Batch, Objective, Params, State


def of_pictures(objective: Objective, augment: Any) -> Callable[[Params, State, Batch], dict[str, Array]]:
  """Returns (params, objective state, host batch) -> the objective's encoding, of pictures as evaluation sees them."""
  return lambda params, state, host: objective.encode(params, state, augment.evaluate(host))


def of_views(
  objective: Objective, augment: Any, *, names: Sequence[str]
) -> Callable[[Params, State, Array, Batch], dict[str, Array]]:
  """Returns (params, objective state, key, host batch) -> {name: f32[B,2,D]}, of two augmented views of a picture.

  The views are a function of (key, `index`): those of a method with several are its first two, those of a method with
  one are two draws of it.

  Args:
    objective: the method.
    augment: its device augmentation.
    names: outputs of `Objective.encode`; what the objective has of them is returned.

  Raises:
    UserError: it has none of them.
  """

  def encode(params: Params, state: State, key: Array, host: Batch) -> dict[str, Array]:
    views = _two_views(augment, key, host)
    outputs = objective.encode(params, state, {"image": sharding.constrain(views.reshape(-1, *views.shape[2:]))})
    found = {name: outputs[name].reshape(len(views), 2, -1) for name in names if name in outputs}
    if not found:
      raise UserError(f"health.features: unknown output {nearest(', '.join(names), outputs)}")
    return found

  return encode


def _two_views(augment: Any, key: Array, host: Batch) -> Array:
  """Returns f32[B,2,H,W,C]."""
  keys = lambda draw: rng.example_keys(key, host["index"] + jnp.array([draw, 0], jnp.uint32))
  if "views" in augment.produces:
    return augment(keys(0), host)["views"][:, :2]
  return jnp.stack([augment(keys(draw), host)["image"] for draw in (0, 1)], axis=1)
