"""Losses over prototypes: assignments of embeddings to clusters that fill all of them alike."""

import jax
import jax.numpy as jnp

from ssljax.types import Array


def sinkhorn(scores: Array, *, epsilon: float | Array, iterations: int) -> Array:
  """Returns assignments f32[B,K] of exp(scores / epsilon): rows sum to 1, columns to B / K but for the last turn.

  Each turn divides every column by its sum and K, then every row by its sum and B; the result is times B. Gradients do
  not go through it.

  Args:
    scores: f32[B,K], of B embeddings with K prototypes; B is the global batch.
    epsilon: how soft the assignments are (SwAV 0.05, DINOv2 the teacher's temperature).
    iterations: turns (3 in both).

  Source: Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster Assignments, 2020, arXiv
    2006.09882; Cuturi, Sinkhorn Distances, 2013, arXiv 1306.0895.
  Differs from the reference: the largest score is taken off first, so that nothing overflows.
  """
  scores = jax.lax.stop_gradient(scores.astype(jnp.float32)) / epsilon
  q = jnp.exp(scores - jnp.max(scores))
  q = q / jnp.sum(q)
  batch, prototypes = scores.shape
  for _ in range(iterations):
    q = q / jnp.sum(q, axis=0, keepdims=True) / prototypes
    q = q / jnp.sum(q, axis=1, keepdims=True) / batch
  return q * batch
