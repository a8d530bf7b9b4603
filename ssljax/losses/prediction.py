"""Losses that hold a prediction from one view to the target of the other one, and what tells a collapse."""

import jax.numpy as jnp

from ssljax.losses.contrastive import l2_normalize
from ssljax.types import Array


def mean_cosine(x: Array, y: Array) -> Array:
  """Returns the mean f32[] over rows of the cosine of x[B,D] and y[B,D], from -1 to 1."""
  return jnp.mean(jnp.sum(l2_normalize(x) * l2_normalize(y), axis=-1))


def normalized_distance(prediction: Array, target: Array) -> Array:
  """Returns the mean squared distance f32[] of rows of unit length (equation 2):

      1/B sum_i || p_i / ||p_i|| - z_i / ||z_i|| ||^2  =  2 - 2 mean cosine

  Args:
    prediction: f32[B,D], p; lengths do not matter.
    target: f32[B,D], z.

  Source: Grill, Strub, Altché et al., "Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning", 2020,
    arXiv 2006.07733.
  """
  return jnp.mean(jnp.sum((l2_normalize(prediction) - l2_normalize(target)) ** 2, axis=-1))


def unit_std(x: Array) -> Array:
  """Returns how far rows of x[B,D] spread on the sphere, f32[]: 0 where all are one, near 1 where no direction leads.

  The mean over coordinates of the standard deviation of rows of unit length, times sqrt(D).

  Source: Chen, He, "Exploring Simple Siamese Representation Learning", 2020, arXiv 2011.10566 (figure 2).
  """
  return jnp.mean(jnp.std(l2_normalize(x), axis=0)) * x.shape[-1] ** 0.5
