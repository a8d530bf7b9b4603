"""The pre-norm transformer block and its parts; parameter names follow timm."""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from ssljax import precision, sharding
from ssljax.types import Array

Initializer = nn.initializers.Initializer
LAYER_NORM_EPSILON = 1e-6
ATTENTION = "attention"  # what remat policies call the heads' results, side by side


class Dense(nn.Module):
  """x @ kernel + bias: f32[..., features]; operands of the product in `dtype`, sums in float32.

  Several numbers in `features` are several axes of one product: initialised as one, its bias is flat.
  """

  features: int | tuple[int, ...]
  bias: Literal["present", "absent"] = "present"
  kernel_init: Initializer = nn.initializers.xavier_uniform()
  dtype: precision.Dtype = "float32"

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Returns f32[..., features] for x[..., K]."""
    shape = (self.features,) if isinstance(self.features, int) else self.features
    flat = math.prod(shape)
    init = lambda key: self.kernel_init(key, (x.shape[-1], flat), jnp.float32).reshape(-1, *shape)
    y = precision.dot(x, self.param("kernel", init), dtype=self.dtype)
    if self.bias == "absent":
      return y
    return y + self.param("bias", nn.initializers.zeros, (flat,), jnp.float32).reshape(shape)


class LayerNorm(nn.LayerNorm):
  """Layer normalisation with epsilon 1e-6 in float32 (flax's one-pass variance is the fast one)."""

  epsilon: float = LAYER_NORM_EPSILON


class BatchNorm(nn.BatchNorm):
  """Batch normalisation over the global batch in float32; running averages keep 0.9 of the old value a step.

  (flax's momentum 0.9 is PyTorch's 0.1.)
  """

  momentum: float = 0.9
  epsilon: float = 1e-5


def gelu(x: Array) -> Array:
  """Returns x Phi(x), the exact GELU (flax's default is the tanh approximation)."""
  return 0.5 * x * (1.0 + jax.lax.erf(x * 0.5**0.5))


class Attention(nn.Module):
  """Multi-head self-attention with one fused qkv product: softmax(q k^T / sqrt(d)) v, softmax in float32.

  The kernel of qkv is f32[D,3,D] and not timm's [D,3 D]: cut over devices on its last axis, each has whole heads.
  """

  heads: int
  dtype: precision.Dtype = "float32"

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Returns f32[B,N,D] for x[B,N,D]."""
    width = x.shape[-1]
    qkv = Dense((3, width), dtype=self.dtype, name="qkv")(x).astype(self.dtype)
    heads = lambda part: sharding.split_heads(part.reshape(*x.shape[:-1], self.heads, width // self.heads))
    q, k, v = (heads(qkv[..., i, :]) for i in range(3))
    mixed = jax.nn.dot_product_attention(q, k, v).astype(jnp.float32).reshape(x.shape)
    return Dense(width, dtype=self.dtype, name="proj")(checkpoint_name(sharding.split_last(mixed), ATTENTION))


class MLP(nn.Module):
  """Dense, exact GELU, Dense."""

  hidden: int
  dtype: precision.Dtype = "float32"

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Returns f32[B,N,D] for x[B,N,D]."""
    hidden = gelu(sharding.split_last(Dense(self.hidden, dtype=self.dtype, name="fc1")(x)))
    return Dense(x.shape[-1], dtype=self.dtype, name="fc2")(hidden)


class LayerScale(nn.Module):
  """gamma * x with one learnt number a channel (Touvron et al., CaiT, 2021, arXiv 2103.17239)."""

  initial: float

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Returns f32[..., D] for x[..., D]."""
    return x * self.param("gamma", nn.initializers.constant(self.initial), (x.shape[-1],), jnp.float32)


def drop_path(x: Array, keys: Array, *, rate: Array | float) -> Array:
  """Returns x[B,...] with whole examples set to zero with probability `rate`, the others divided by 1 - rate.

  Example b is decided by keys[b] alone, so its place in the batch does not matter.

  Source: Huang et al., Deep Networks with Stochastic Depth, 2016, arXiv 1603.09382.
  """
  kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - rate))(keys)
  return x * (kept / (1.0 - rate)).reshape(-1, *(1,) * (x.ndim - 1))


class Block(nn.Module):
  """x + attention(norm1(x)), then x + mlp(norm2(x)); each branch optionally scaled and dropped by example."""

  heads: int
  hidden: int
  layer_scale: float | None = None
  dtype: precision.Dtype = "float32"
  norm_epsilon: float = LAYER_NORM_EPSILON

  def _branch(self, y: Array, keys: Array | None, rate: Array | float, which: int) -> Array:
    if self.layer_scale is not None:
      y = LayerScale(self.layer_scale, name=f"ls{which}")(y)
    if keys is None:
      return y
    return drop_path(y, jax.vmap(lambda key: jax.random.fold_in(key, which))(keys), rate=rate)

  @nn.compact
  def __call__(self, x: Array, keys: Array | None = None, rate: Array | float = 0.0) -> Array:
    """Returns f32[B,N,D] for x[B,N,D]; `keys` key[B] and `rate` are those of `drop_path`."""
    attended = Attention(self.heads, dtype=self.dtype, name="attn")(LayerNorm(self.norm_epsilon, name="norm1")(x))
    x = x + self._branch(attended, keys, rate, 1)
    mixed = MLP(self.hidden, dtype=self.dtype, name="mlp")(LayerNorm(self.norm_epsilon, name="norm2")(x))
    return x + self._branch(mixed, keys, rate, 2)
