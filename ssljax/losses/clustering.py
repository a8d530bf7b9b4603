"""Losses over prototypes: assignments of embeddings to clusters that fill all of them alike; room between points."""

import jax
import jax.numpy as jnp

from ssljax import sharding
from ssljax.losses.contrastive import l2_normalize
from ssljax.types import Array

KOLEO_EPSILON = 1e-8


def sinkhorn(scores: Array, *, epsilon: float | Array, iterations: int, counted: Array | None = None) -> Array:
  """Returns assignments f32[B,K] of exp(scores / epsilon): rows sum to 1, columns to B / K but for the last turn.

  Each turn divides every column by its sum and K, then every row by its sum and B; the result is times B. Gradients do
  not go through it.

  Args:
    scores: f32[B,K], of B embeddings with K prototypes; B is the global batch.
    epsilon: how soft the assignments are (SwAV 0.05, DINOv2 the teacher's temperature).
    iterations: turns (3 in both).
    counted: bool[B], the rows there are; the others are as if they were not, and 0 in the result. None: all.

  Source: Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster Assignments, 2020, arXiv
    2006.09882; Cuturi, Sinkhorn Distances, 2013, arXiv 1306.0895.
  Differs from the reference: the largest score is taken off first, so that nothing overflows.
  """
  scores = jax.lax.stop_gradient(scores.astype(jnp.float32)) / epsilon
  there = jnp.ones((len(scores), 1), bool) if counted is None else counted[:, None]
  q = jnp.where(there, jnp.exp(scores - jnp.max(scores, where=there, initial=-jnp.inf)), 0.0)
  share = lambda q, axis: q / jnp.where(total := jnp.sum(q, axis=axis, keepdims=True), total, 1.0)
  q = share(q, (0, 1))
  batch, prototypes = jnp.sum(there), scores.shape[1]
  for _ in range(iterations):
    q = share(q, 0) / prototypes
    q = share(q, 1) / jnp.maximum(batch, 1)
  return q * batch


def koleo(x: Array) -> Array:
  """Returns -mean_i log ||x_i - x_j||, f32[] in nats: x_j is the nearest other point. It spreads points evenly.

  Lengths do not count: x f32[B,D] is put on the unit sphere first. Which point is nearest is chosen by the largest dot
  product; gradients go through the distance alone.

  Source: Sablayrolles, Douze, Schmid, Jégou, Spreading vectors for similarity search, 2018, arXiv 1806.03198; Oquab et
    al., DINOv2, 2023, arXiv 2304.07193.
  """
  x = sharding.whole(l2_normalize(x))  # a neighbour may lie on any device
  cosines = jax.lax.stop_gradient(jnp.matmul(x, x.T, precision=jax.lax.Precision.HIGHEST))
  nearest = jnp.argmax(jnp.where(jnp.eye(len(x), dtype=bool), -1.0, cosines), axis=1)
  distance = jnp.linalg.norm(x - x[nearest] + KOLEO_EPSILON, axis=-1)
  return -jnp.mean(jnp.log(distance + KOLEO_EPSILON))
