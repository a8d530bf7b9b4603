"""The pre-norm transformer block and its parts; parameter names follow timm."""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from ssljax import precision
from ssljax.types import Array

Initializer = nn.initializers.Initializer
LAYER_NORM_EPSILON = 1e-6


class Dense(nn.Module):
  """x @ kernel + bias: f32[..., features]; operands of the product in `dtype`, sums in float32."""

  features: int
  bias: Literal["present", "absent"] = "present"
  kernel_init: Initializer = nn.initializers.xavier_uniform()
  dtype: precision.Dtype = "float32"

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Returns f32[..., features] for x[..., K]."""
    kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features), jnp.float32)
    y = precision.dot(x, kernel, dtype=self.dtype)
    if self.bias == "absent":
      return y
    return y + self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)


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
  """Multi-head self-attention with one fused qkv product: softmax(q k^T / sqrt(d)) v, softmax in float32."""

  heads: int
  dtype: precision.Dtype = "float32"

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Returns f32[B,N,D] for x[B,N,D]."""
    width = x.shape[-1]
    qkv = jnp.split(Dense(3 * width, dtype=self.dtype, name="qkv")(x).astype(self.dtype), 3, axis=-1)
    q, k, v = (part.reshape(*x.shape[:-1], self.heads, width // self.heads) for part in qkv)
    mixed = jax.nn.dot_product_attention(q, k, v).astype(jnp.float32).reshape(x.shape)
    return Dense(width, dtype=self.dtype, name="proj")(mixed)


class MLP(nn.Module):
  """Dense, exact GELU, Dense."""

  hidden: int
  dtype: precision.Dtype = "float32"

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Returns f32[B,N,D] for x[B,N,D]."""
    hidden = gelu(Dense(self.hidden, dtype=self.dtype, name="fc1")(x))
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

  def _branch(self, y: Array, keys: Array | None, rate: Array | float, which: int) -> Array:
    if self.layer_scale is not None:
      y = LayerScale(self.layer_scale, name=f"ls{which}")(y)
    if keys is None:
      return y
    return drop_path(y, jax.vmap(lambda key: jax.random.fold_in(key, which))(keys), rate=rate)

  @nn.compact
  def __call__(self, x: Array, keys: Array | None = None, rate: Array | float = 0.0) -> Array:
    """Returns f32[B,N,D] for x[B,N,D]; `keys` key[B] and `rate` are those of `drop_path`."""
    attended = Attention(self.heads, dtype=self.dtype, name="attn")(LayerNorm(name="norm1")(x))
    x = x + self._branch(attended, keys, rate, 1)
    mixed = MLP(self.hidden, dtype=self.dtype, name="mlp")(LayerNorm(name="norm2")(x))
    return x + self._branch(mixed, keys, rate, 2)
