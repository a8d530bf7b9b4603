"""Redundancy reduction: two views agree, while the numbers of an embedding vary and say different things each.

The correlations of D numbers over a batch of B rows are a matrix x^T y f32[D,D]. With the papers' D of 8192 it is
256 MB, and each device would hold it whole. So its rows are cut over the devices; and where the batch is the smaller,
the sum of its squares is taken from two matrices f32[B,B] instead, of which each device holds some rows:

    sum_ij (x^T y)_ij^2 = sum_nm (x x^T)_nm (y y^T)_nm
"""

import jax
import jax.numpy as jnp

from ssljax import sharding
from ssljax.losses.pair_sums import products
from ssljax.types import Array

VICREG_EPSILON = 1e-4  # added to a variance before its root
BATCH_NORM_EPSILON = 1e-5


def vicreg(
  x: Array, y: Array, *, invariance: float | Array, variance: float | Array, covariance: float | Array
) -> dict[str, Array]:
  """Returns the terms "invariance", "variance", "covariance" and "total", their weighted sum; each f32[].

  With c(x) = (x - mean)^T (x - mean) / (B - 1), for embeddings of D numbers:

      invariance = mean over examples and numbers of (x - y)^2
      variance   = (v(x) + v(y)) / 2,   v(x) = mean_d max(0, 1 - sqrt(c(x)_dd + 1e-4))
      covariance = k(x) + k(y),         k(x) = sum_{d != e} c(x)_de^2 / D

  These are the conventions of the released code. The paper's invariance sums over the numbers (D times this one), and
  its variance is v(x) + v(y) (twice this one); its covariance is the same.

  Args:
    x: f32[B,D], embeddings of the first views, B at least 2.
    y: f32[B,D], embeddings of the second views.
    invariance, variance, covariance: the weights of the three terms (the paper's 25, 25 and 1).

  Source: Bardes, Ponce, LeCun, "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning",
    2021, arXiv 2105.04906.
  """
  x, y = x.astype(jnp.float32), y.astype(jnp.float32)
  of_x, of_y = variance_and_covariance(x), variance_and_covariance(y)
  terms = {
    "invariance": jnp.mean(jnp.square(x - y)),
    "variance": 0.5 * (of_x["variance"] + of_y["variance"]),
    "covariance": of_x["covariance"] + of_y["covariance"],
  }
  total = invariance * terms["invariance"] + variance * terms["variance"] + covariance * terms["covariance"]
  return terms | {"total": total}


def variance_and_covariance(x: Array) -> dict[str, Array]:
  """Returns v(x) as "variance" and k(x) as "covariance" of `vicreg`, for the embeddings f32[B,D] of one view."""
  x = x.astype(jnp.float32)
  x = x - jnp.mean(x, axis=0)
  variances = jnp.sum(jnp.square(x), axis=0) / (len(x) - 1)
  hinge = jnp.mean(jax.nn.relu(1.0 - jnp.sqrt(variances + VICREG_EPSILON)))
  scaled = x * (len(x) - 1) ** -0.5
  return {"variance": hinge, "covariance": _squares_off_diagonal(scaled, scaled, variances) / x.shape[1]}


def barlow_twins(x: Array, y: Array, *, off_diagonal_weight: float | Array) -> Array:
  """Returns sum_d (1 - c_dd)^2 + off_diagonal_weight * sum_{d != e} c_de^2, f32[] (equation 1).

  c_de is the correlation over the batch of number d of x with number e of y, each less its mean and divided by
  sqrt(biased variance + 1e-5), as batch normalisation does.

  Args:
    x: f32[B,D], embeddings of the first views, B at least 2.
    y: f32[B,D], embeddings of the second views.
    off_diagonal_weight: the paper's lambda, 0.0051.

  Source: Zbontar, Jing, Misra, LeCun, Deny, "Barlow Twins: Self-Supervised Learning via Redundancy Reduction", 2021,
    arXiv 2103.03230.
  """
  return sum(barlow_twins_terms(x, y, off_diagonal_weight=off_diagonal_weight))


def barlow_twins_terms(x: Array, y: Array, *, off_diagonal_weight: float | Array) -> tuple[Array, Array]:
  """Returns the two summands of `barlow_twins`, f32[] each."""
  x, y = (_standardized(z) * len(z) ** -0.5 for z in (x, y))
  diagonal = jnp.sum(x * y, axis=0)
  return jnp.sum(jnp.square(1.0 - diagonal)), off_diagonal_weight * _squares_off_diagonal(x, y, diagonal)


def _standardized(x: Array) -> Array:
  x = x.astype(jnp.float32)
  x = x - jnp.mean(x, axis=0)
  return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=0) + BATCH_NORM_EPSILON)


def _squares_off_diagonal(x: Array, y: Array, diagonal: Array) -> Array:
  """Returns sum_{d != e} (x^T y)_de^2 f32[] of x, y f32[B,D], whose `diagonal` f32[D] is known."""
  if len(x) < x.shape[1]:
    x, y = (sharding.constrain(products(z, z)) for z in (x, y))
    return jnp.sum(x * y) - jnp.sum(jnp.square(diagonal))
  correlations = sharding.constrain(products(x.T, y.T))
  return jnp.sum(jnp.square(jnp.where(jnp.eye(x.shape[1], dtype=bool), 0.0, correlations)))
