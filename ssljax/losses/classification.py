"""Losses over classes that have a label."""

import jax
import jax.numpy as jnp

from ssljax.types import Array


def smoothed_cross_entropy(logits: Array, labels: Array, *, smoothing: float) -> Array:
  """Returns -sum_k q_k log softmax(logits)_k f32[...] in nats, q = (1 - smoothing) [k = label] + smoothing / K.

  Args:
    logits: f32[...,K].
    labels: int[...], from 0 to K - 1.
    smoothing: share of the target that is spread evenly over all K classes; 0 is the plain cross entropy.

  Source: Szegedy et al., Rethinking the Inception Architecture for Computer Vision, 2015, arXiv 1512.00567, section 7.
  """
  log_p = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
  chosen = jnp.take_along_axis(log_p, labels[..., None], axis=-1)[..., 0]
  return -(1 - smoothing) * chosen - smoothing * jnp.mean(log_p, axis=-1)
