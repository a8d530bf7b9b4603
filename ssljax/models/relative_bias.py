"""T5's relative positions: a learnt number a head for each bucket of distances, added to the attention's logits."""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from ssljax.types import Array

Direction = Literal["both", "causal"]


def relative_position_bucket(
  relative: Array, *, direction: Direction, num_buckets: int = 32, max_distance: int = 128
) -> Array:
  """Returns buckets int32[...], 0 to num_buckets - 1, of relative = key - query int[...], tokens.

  Half of the buckets are exact distances, the other half grow logarithmically up to `max_distance`, beyond which all
  share the last. "both" gives the first half of the buckets to keys at or before the query and the second to those
  after; "causal" puts all keys after it in bucket 0.

  Source: Raffel et al., Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer, 2019,
  arXiv 1910.10683; the authors' code.
  """
  if direction == "both":
    num_buckets //= 2
    start, distance = jnp.where(relative > 0, num_buckets, 0), jnp.abs(relative)
  else:
    start, distance = 0, jnp.maximum(-relative, 0)
  exact = num_buckets // 2
  # The epsilon is the authors': it decides the bucket where the logarithm is a whole number.
  ratio = jnp.log(distance.astype(jnp.float32) / exact + jnp.finfo(jnp.float32).eps) / math.log(max_distance / exact)
  far = jnp.minimum(exact + (ratio * (num_buckets - exact)).astype(jnp.int32), num_buckets - 1)
  return (start + jnp.where(distance < exact, distance, far)).astype(jnp.int32)


class RelativeBias(nn.Module):
  """One table f32[heads,buckets] for all layers of a stack."""

  heads: int
  direction: Direction
  num_buckets: int = 32
  max_distance: int = 128

  @nn.compact
  def __call__(self, query: Array, key: Array) -> Array:
    """Returns f32[heads,Q,K] for positions int32[Q] and int32[K], tokens.

    Indices within a row serve as positions: inside a segment their differences are the same.
    """
    init = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
    table = self.param("rel_embedding", init, (self.heads, self.num_buckets), jnp.float32)
    buckets = relative_position_bucket(
      key[None, :] - query[:, None],
      direction=self.direction,
      num_buckets=self.num_buckets,
      max_distance=self.max_distance,
    )
    # A product, not a gather: the gradient of a gather would be Q * K scattered additions.
    choice = jax.nn.one_hot(buckets, self.num_buckets, axis=0)
    return jnp.einsum("hn,nqk->hqk", table, choice, precision=jax.lax.Precision.HIGHEST)
