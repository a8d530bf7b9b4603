"""Bags of visual words: how much of each word there is in a picture, softly, and how well that was guessed."""

import jax
import jax.numpy as jnp

from ssljax.types import Array


def squared_distances(features: Array, words: Array) -> Array:
  """Returns ||f_n - w_k||^2 f32[...,K] of features f32[...,D] and words f32[K,D], without gradient."""
  features, words = (jax.lax.stop_gradient(x).astype(jnp.float32) for x in (features, words))
  product = jnp.matmul(features, words.T, precision=jax.lax.Precision.HIGHEST)
  return jnp.sum(features**2, axis=-1, keepdims=True) + jnp.sum(words**2, axis=-1) - 2 * product


def bag_of_words(distances: Array, *, sharpness: float | Array) -> Array:
  """Returns how much of each word there is f32[B,K], which sums to 1, for distances f32[B,N,K] of N places to K words.

      codes_nk = softmax_k(-sharpness * distances_nk),   bag_k = max_n codes_nk / sum_j max_n codes_nj

  Source: Gidaris, Bursuc, Puy, Komodakis, Cord, Pérez, Online Bag-of-Visual-Words Generation for Unsupervised
    Representation Learning, 2020, arXiv 2012.11552.
  """
  most = jnp.max(jax.nn.softmax(-sharpness * distances, axis=-1), axis=-2)
  return most / jnp.sum(most, axis=-1, keepdims=True)


def bag_loss(logits: Array, bags: Array) -> Array:
  """Returns the mean of KL(bag || softmax(logits)) f32[] over all guesses, logits f32[B,V,K], of bags f32[B,K]."""
  bags = bags[:, None]
  nats = jax.scipy.special.xlogy(bags, bags) - bags * jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
  return jnp.mean(jnp.sum(nats, axis=-1))
