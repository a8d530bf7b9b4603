"""How features of two views of pictures lie: what tells, without labels, whether a representation collapses."""

import jax
import jax.numpy as jnp

from ssljax.evaluators.knn import normalize
from ssljax.evaluators.rankme import feature_std, rankme
from ssljax.types import Array


def alignment(x: Array, y: Array) -> Array:
  """Returns the mean squared distance f32[] of partners x[N,D] and y[N,D]: 0 when both views look the same.

  mean_i ||x_i - y_i||^2

  Source: Wang and Isola, "Understanding Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere", 2020, arXiv 2005.10242, with alpha = 2.
  """
  return jnp.mean(jnp.sum(jnp.square(x - y), axis=-1))


def uniformity(x: Array) -> Array:
  """Returns how evenly x[N,D] fill the sphere, f32[]: 0 when all are the same point, less when they spread.

  log mean_{i != j} exp(-2 ||x_i - x_j||^2)

  Source: Wang and Isola, as for `alignment`, with t = 2.
  """
  length = jnp.sum(jnp.square(x), axis=-1)
  squared = length[:, None] + length - 2 * jnp.matmul(x, x.T, precision="highest")
  others = ~jnp.eye(len(x), dtype=bool)
  pairs = len(x) * (len(x) - 1)
  return jax.nn.logsumexp(-2 * jnp.maximum(squared, 0), where=others) - jnp.log(pairs)


@jax.jit
def measures(first: Array, second: Array) -> dict[str, Array]:
  """Returns "rankme", "feature_std", "alignment" and "uniformity" of features [N,D] of two views of N pictures, N > 1.

  RankMe and standard deviation are those of all 2N rows. Alignment and uniformity are of rows of unit length, and
  uniformity is the mean of both views'.
  """
  both = jnp.concatenate([first, second])
  x, y = normalize(first), normalize(second)
  return {
    "rankme": rankme(both),
    "feature_std": feature_std(both),
    "alignment": alignment(x, y),
    "uniformity": (uniformity(x) + uniformity(y)) / 2,
  }
