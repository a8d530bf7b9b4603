"""Contrastive losses: the positive of an anchor against all other embeddings of the batch, or against a queue.

Arrays are global. Under a mesh the anchors stay where their examples are and one all-gather brings the embeddings
they are compared with.
"""

import jax
import jax.numpy as jnp

from ssljax import sharding
from ssljax.types import Array

EPSILON = 1e-12  # smallest squared length: a zero vector stays zero and its gradient finite


def l2_normalize(x: Array) -> Array:
  """Returns x / ||x|| along the last axis, in float32: x / sqrt(max(||x||^2, 1e-12))."""
  x = x.astype(jnp.float32)
  return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), EPSILON))


def nt_xent(a: Array, b: Array, *, temperature: float | Array) -> Array:
  """Returns the normalised-temperature cross entropy f32[], the mean over the 2B anchors, in nats.

  With z the 2B rows of a and b, each divided by its length, and j(i) the other view of i (equation 1):

      loss = -1/(2B) sum_i log( exp(z_i . z_j(i) / T) / sum_{k != i} exp(z_i . z_k / T) )

  Args:
    a: f32[B,D], embeddings of the first views; lengths do not matter.
    b: f32[B,D], embeddings of the second views.
    temperature: T.

  Source: Chen, Kornblith, Norouzi, Hinton, "A Simple Framework for Contrastive Learning of Visual Representations",
    2020, arXiv 2002.05709.
  Differs from the reference: the authors' TensorFlow code adds the means over the two views and so returns twice
    this.
  """
  logits = nt_xent_logits(a, b, temperature=temperature)
  positives = jnp.sum(l2_normalize(a) * l2_normalize(b), axis=-1) / temperature
  return jnp.mean(jax.nn.logsumexp(logits, axis=-1)) - jnp.mean(positives)


def nt_xent_logits(a: Array, b: Array, *, temperature: float | Array) -> Array:
  """Returns f32[2B,2B], cosine over temperature between all rows z = (a_0, b_0, a_1, b_1, ...).

  The positive of row i is column i^1; the diagonal, a row with itself, is minus infinity.
  """
  z = l2_normalize(jnp.stack([a, b], axis=1).reshape(-1, a.shape[-1]))
  logits = sharding.constrain(_products(z, z) / temperature)
  return jnp.where(jnp.eye(len(z), dtype=bool), -jnp.inf, logits)


def info_nce(query: Array, key: Array, queue: Array, *, temperature: float | Array) -> Array:
  """Returns the contrastive loss of queries against a queue, f32[], the mean over the B queries, in nats.

  With all rows divided by their lengths (equation 1):

      loss = -1/B sum_i log( exp(q_i . k_i / T) / (exp(q_i . k_i / T) + sum_n exp(q_i . queue_n / T)) )

  Args:
    query: f32[B,D].
    key: f32[B,D], the positive of each query.
    queue: f32[K,D], the negatives of all queries.
    temperature: T.

  Source: He, Fan, Wu, Xie, Girshick, "Momentum Contrast for Unsupervised Visual Representation Learning", 2020,
    arXiv 1911.05722.
  """
  query, key = l2_normalize(query), l2_normalize(key)
  positives = jnp.sum(query * key, axis=-1, keepdims=True)
  negatives = sharding.constrain(_products(query, l2_normalize(queue)))
  logits = jnp.concatenate([positives, negatives], axis=1) / temperature
  return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - logits[:, 0])


def _products(x: Array, y: Array) -> Array:
  # Accelerators round float32 operands by default; a logit is divided by a small temperature, so it must be exact.
  return jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)
