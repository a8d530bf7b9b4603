"""Losses over vocabularies: cross entropy of tokens with T5's term for the size of the logits."""

import jax
import jax.numpy as jnp

from ssljax.types import Array


def cross_entropy(logits: Array, targets: Array, *, z_loss: float) -> tuple[Array, Array]:
  """Returns (cross entropy, z term), two f32[...] in nats, for logits[...,V] and targets int[...].

      cross entropy = log Z - logits[target]     z term = z_loss (log Z)^2     Z = sum_v exp(logits[v])

  Both are by token; T5 sums them over the batch, ours are averaged by the objective.

  Args:
    z_loss: weight of the z term, which keeps log Z near 0.

  Source: Raffel et al., 2019, arXiv 1910.10683 (cross entropy); the z term is Mesh TensorFlow's and t5x's, 1e-4.
  """
  logits = logits.astype(jnp.float32)
  log_z = jax.nn.logsumexp(logits, axis=-1)
  chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  return log_z - chosen, z_loss * jnp.square(log_z)
