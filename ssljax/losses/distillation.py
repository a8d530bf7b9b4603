"""Distillation losses: how far the features of one model are from those of another."""

import jax.numpy as jnp

from ssljax.losses.contrastive import l2_normalize
from ssljax.types import Array


def cosine_distance(a: Array, b: Array) -> Array:
  """Returns 1 - cos(a, b) f32[...] for features a, b [...,D]: 0 in the same direction, 1 at right angles, 2 opposed.

  It is computed as ||a/|a| - b/|b|||^2 / 2, the same number without the cancellation in 1 - cos: features of a model
  and of its recent copy are nearly parallel, and equal ones are at distance 0 exactly, with gradient 0. A zero vector
  has no direction: it is 1/2 from every other, with finite gradients.
  """
  return 0.5 * jnp.sum(jnp.square(l2_normalize(a) - l2_normalize(b)), axis=-1)
