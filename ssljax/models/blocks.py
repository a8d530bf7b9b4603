"""A stack of blocks: one parameter tree on every platform, rolled or unrolled as the platform likes it."""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from ssljax import precision, sharding
from ssljax.models.layers import Block
from ssljax.types import Array

Remat = Literal["none", "full", "dots"]
POLICIES = {
  "full": jax.checkpoint_policies.nothing_saveable,
  "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


class _Layer(nn.Module):
  """One block as the body of a scan: it carries x and shares the block's scope, so no name is added."""

  block: Block

  def setup(self) -> None:
    nn.share_scope(self, self.block)

  def __call__(self, x: Array, keys: Array | None, layer: Array, rate: Array) -> tuple[Array, None]:
    if keys is not None:
      keys = jax.vmap(lambda key: jax.random.fold_in(key, layer))(keys)
    return sharding.constrain(self.block(x, keys, rate)), None


class Blocks(nn.Module):
  """`depth` blocks in a row, their parameters stacked on axis 0.

  Attributes:
    depth: number of blocks.
    heads, hidden, layer_scale, dtype: those of `layers.Block`.
    drop_path: rate in the last block; it grows linearly from 0 in the first.
    remat: what the backward pass computes again: nothing, all but the blocks' inputs ("full"), or all but the
      results of matrix products with parameters ("dots").
    unroll: how many blocks a turn of the compiled loop holds; None for all on a CPU, where a loop hinders
      fusion, and one elsewhere, where compilation time counts.
  """

  depth: int
  heads: int
  hidden: int
  drop_path: float = 0.0
  layer_scale: float | None = None
  dtype: precision.Dtype = "float32"
  remat: Remat = "none"
  unroll: int | None = None

  def _turn(self) -> int:
    if self.is_initializing():
      return 1
    return self.unroll or (self.depth if jax.default_backend() == "cpu" else 1)

  def setup(self) -> None:
    """Scans one block over the depth, in this module's own scope."""
    layer = _Layer
    if self.remat != "none":  # the barrier against common subexpressions is needed outside of a loop only
      layer = nn.remat(_Layer, policy=POLICIES[self.remat], prevent_cse=self._turn() == self.depth)
    self.stack = nn.scan(
      layer,
      variable_axes={"params": 0},
      split_rngs={"params": True},
      in_axes=(nn.broadcast, 0, 0),
      length=self.depth,
      unroll=self._turn(),
    )(Block(self.heads, self.hidden, self.layer_scale, self.dtype))
    nn.share_scope(self, self.stack)

  def __call__(self, x: Array, keys: Array | None = None) -> Array:
    """Returns f32[B,N,D] for x[B,N,D]; with `keys` key[B], branches are dropped at random by example."""
    rates = jnp.linspace(0.0, self.drop_path, self.depth)
    keys = keys if self.drop_path else None
    return self.stack(sharding.constrain(x), keys, jnp.arange(self.depth), rates)[0]
