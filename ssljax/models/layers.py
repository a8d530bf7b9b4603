"""The transformer block and its parts; parameter names follow timm."""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from ssljax import precision, sharding
from ssljax.models.batch_groups import Groups, group_moments, to_examples
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

  Attributes:
    groups: parts of the batch with statistics of their own; the running averages follow the groups' mean.
  """

  momentum: float = 0.9
  epsilon: float = 1e-5
  groups: Groups = Groups()

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Returns f32[N,...,C] for x[N,...,C]."""
    if self.groups.count == 1 or self.use_running_average:
      return super().__call__(x)
    mean, var = group_moments(x, self.groups)
    for name, found in (("mean", mean), ("var", var)):
      held = self.variable("batch_stats", name, jnp.zeros, found.shape[1:])
      held.value = self.momentum * held.value + (1 - self.momentum) * jnp.mean(found, axis=0)
    y = (x - to_examples(mean, self.groups, x)) * to_examples(jax.lax.rsqrt(var + self.epsilon), self.groups, x)
    y = y * self.param("scale", self.scale_init, x.shape[-1:]) if self.use_scale else y
    return y + self.param("bias", self.bias_init, x.shape[-1:]) if self.use_bias else y


def gelu(x: Array) -> Array:
  """Returns x Phi(x), the exact GELU (flax's default is the tanh approximation)."""
  return 0.5 * x * (1.0 + jax.lax.erf(x * 0.5**0.5))


def quick_gelu(x: Array) -> Array:
  """Returns x / (1 + exp(-1.702 x)), the approximation of GELU that CLIP's published weights were trained with.

  Source: Hendrycks, Gimpel, Gaussian Error Linear Units (GELUs), 2016, arXiv 1606.08415.
  """
  return x * jax.nn.sigmoid(1.702 * x)


Activation = Literal["gelu", "gelu_tanh", "quick_gelu"]
ACTIVATIONS = {"gelu": gelu, "gelu_tanh": nn.gelu, "quick_gelu": quick_gelu}


class Attention(nn.Module):
  """Multi-head self-attention with one fused qkv product: softmax(q k^T / sqrt(d)) v, softmax in float32.

  The kernel of qkv is f32[D,3,D] and not timm's [D,3 D]: cut over devices on its last axis, each has whole heads.
  """

  heads: int
  dtype: precision.Dtype = "float32"

  @nn.compact
  def __call__(self, x: Array, allowed: Array | None = None) -> Array:
    """Returns f32[B,N,D] for x[B,N,D].

    Args:
      x: f32[B,N,D].
      allowed: bool[B or 1,N or 1,N], which places a place may look at; None for all.
    """
    width = x.shape[-1]
    qkv = Dense((3, width), dtype=self.dtype, name="qkv")(x).astype(self.dtype)
    heads = lambda part: sharding.split_heads(part.reshape(*x.shape[:-1], self.heads, width // self.heads))
    q, k, v = (heads(qkv[..., i, :]) for i in range(3))
    mask = None if allowed is None else allowed[:, None]
    mixed = jax.nn.dot_product_attention(q, k, v, mask=mask).astype(jnp.float32).reshape(x.shape)
    return Dense(width, dtype=self.dtype, name="proj")(checkpoint_name(sharding.split_last(mixed), ATTENTION))


class MLP(nn.Module):
  """Dense, GELU (exact, or one of its approximations), Dense."""

  hidden: int
  dtype: precision.Dtype = "float32"
  activation: Activation = "gelu"

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Returns f32[B,N,D] for x[B,N,D]."""
    hidden = sharding.split_last(Dense(self.hidden, dtype=self.dtype, name="fc1")(x))
    return Dense(x.shape[-1], dtype=self.dtype, name="fc2")(ACTIVATIONS[self.activation](hidden))


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
  """x + attention(norm1(x)), then x + mlp(norm2(x)); each branch optionally scaled and dropped by example.

  With norms "post" it is norm1(x + attention(x)), then norm2(x + mlp(x)), as BERT has it.
  """

  heads: int
  hidden: int
  layer_scale: float | None = None
  dtype: precision.Dtype = "float32"
  norm_epsilon: float = LAYER_NORM_EPSILON
  activation: Activation = "gelu"
  norms: Literal["pre", "post"] = "pre"

  def _branch(self, y: Array, keys: Array | None, rate: Array | float, which: int) -> Array:
    if self.layer_scale is not None:
      y = LayerScale(self.layer_scale, name=f"ls{which}")(y)
    if keys is None:
      return y
    return drop_path(y, jax.vmap(lambda key: jax.random.fold_in(key, which))(keys), rate=rate)

  @nn.compact
  def __call__(
    self, x: Array, keys: Array | None = None, rate: Array | float = 0.0, allowed: Array | None = None
  ) -> Array:
    """Returns f32[B,N,D] for x[B,N,D]; `keys` key[B], `rate` as for `drop_path`, `allowed` as for `Attention`."""
    norm1, norm2 = (LayerNorm(self.norm_epsilon, name=name) for name in ("norm1", "norm2"))
    attention = Attention(self.heads, dtype=self.dtype, name="attn")
    mlp = MLP(self.hidden, dtype=self.dtype, activation=self.activation, name="mlp")
    if self.norms == "post":
      x = norm1(x + self._branch(attention(x, allowed), keys, rate, 1))
      return norm2(x + self._branch(mlp(x), keys, rate, 2))
    x = x + self._branch(attention(norm1(x), allowed), keys, rate, 1)
    return x + self._branch(mlp(norm2(x)), keys, rate, 2)
