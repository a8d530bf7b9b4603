"""A stack of blocks: one parameter tree on every platform, rolled or unrolled as the platform likes it."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from ssljax import precision, sharding
from ssljax.models.layers import ATTENTION, LAYER_NORM_EPSILON, Activation, Block
from ssljax.types import Array

Remat = Literal["none", "full", "attention_out", "dots"]
POLICIES = {
  "full": jax.checkpoint_policies.nothing_saveable,
  "attention_out": jax.checkpoint_policies.save_only_these_names(ATTENTION),
  "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


def layers_a_turn(module: nn.Module, *, depth: int, unroll: int | None) -> int:
  """Returns how many of `depth` layers a turn of the compiled loop holds, seen from inside of `module`.

  `unroll` of them, where it is None all on a CPU, where a loop hinders fusion, and one elsewhere, where compilation
  time counts. One in an initialisation, where the parameters are stacked anyway.
  """
  if module.is_initializing():
    return 1
  return unroll or (depth if sharding.platform() == "cpu" else 1)


def stacked(layer: type[nn.Module], *, depth: int, turn: int, remat: Remat = "none") -> type[nn.Module]:
  """Returns a module class: `depth` times `layer` in a row, its parameters stacked on axis 0.

  Args:
    layer: called as layer(x, shared, each) -> (x, out): x goes from layer to layer, `shared` is the same for all,
      and each layer gets its part of `each` along axis 0; so are the `out` stacked.
    depth: number of layers.
    turn: layers a turn of the loop, of `layers_a_turn`.
    remat: what the backward pass computes again, as in `Blocks`.
  """
  if remat != "none":  # the barrier against common subexpressions is needed outside of a loop only
    layer = nn.remat(layer, policy=POLICIES[remat], prevent_cse=turn == depth)
  return nn.scan(
    layer,
    variable_axes={"params": 0, "intermediates": 0},
    split_rngs={"params": True},
    in_axes=(nn.broadcast, 0),
    length=depth,
    unroll=turn,
  )


class _Shared(NamedTuple):
  """What all layers are given: random keys key[B] and allowed bool[B or 1,N or 1,N], each or None."""

  keys: Array | None
  allowed: Array | None


class _Layer(nn.Module):
  """One block as the body of a scan: it carries x and shares the block's scope, so no name is added."""

  block: Block

  def setup(self) -> None:
    nn.share_scope(self, self.block)

  def __call__(self, x: Array, shared: _Shared, each: tuple[Array, Array]) -> tuple[Array, None]:
    keys, (layer, rate) = shared.keys, each
    if keys is not None:
      keys = jax.vmap(lambda key: jax.random.fold_in(key, layer))(keys)
    return sharding.constrain(self.block(x, keys, rate, shared.allowed)), None


class Blocks(nn.Module):
  """`depth` blocks in a row, their parameters stacked on axis 0.

  Attributes:
    depth: number of blocks.
    heads, hidden, layer_scale, dtype, norm_epsilon, activation, norms: those of `layers.Block`.
    drop_path: rate in the last block; it grows linearly from 0 in the first.
    remat: what the backward pass computes again: nothing ("none"); or, from the least memory to the most, all but
      the blocks' inputs ("full"), all but these and what the heads of attention give ("attention_out"), or all but
      the results of matrix products with parameters ("dots").
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
  norm_epsilon: float = LAYER_NORM_EPSILON
  activation: Activation = "gelu"
  norms: Literal["pre", "post"] = "pre"

  def setup(self) -> None:
    """Scans one block over the depth, in this module's own scope."""
    turn = layers_a_turn(self, depth=self.depth, unroll=self.unroll)
    layers = stacked(_Layer, depth=self.depth, turn=turn, remat=self.remat)
    options = {key: getattr(self, key) for key in ("layer_scale", "dtype", "norm_epsilon", "activation", "norms")}
    self.stack = layers(Block(self.heads, self.hidden, **options))
    nn.share_scope(self, self.stack)

  def __call__(self, x: Array, keys: Array | None = None, allowed: Array | None = None) -> Array:
    """Returns f32[B,N,D] for x[B,N,D].

    Args:
      x: f32[B,N,D].
      keys: key[B]; with them branches are dropped at random by example.
      allowed: bool[B or 1,N or 1,N], which places a place may look at; None for all.
    """
    rates = jnp.linspace(0.0, self.drop_path, self.depth)
    keys = keys if self.drop_path else None
    return self.stack(sharding.constrain(x), _Shared(keys, allowed), (jnp.arange(self.depth), rates))[0]
