"""What the text models are made of beside attention: embedding, RMS norm, gated MLP, dropout by example, sizes."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from ssljax import precision, sharding
from ssljax.errors import UserError, nearest
from ssljax.models.layers import Dense, Initializer
from ssljax.types import Array

RMS_NORM_EPSILON = 1e-6
MLP_INIT = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
ACTIVATIONS = {"gelu": nn.gelu, "silu": nn.silu}  # flax's gelu is the tanh approximation, as T5's
Activation = Literal["gelu", "silu"]


class TextSize(NamedTuple):
  """Width of the residual stream, number of blocks (of each stack), heads, width of a head, hidden width of the MLP."""

  width: int
  depth: int
  heads: int
  head_width: int
  hidden: int


def size_of(model: nn.Module, sizes: Mapping[str, TextSize]) -> TextSize:
  """Returns the size of `model.variant` with the model's own fields (width, depth, ...) in place where not None."""
  overrides = {key: getattr(model, key) for key in TextSize._fields if getattr(model, key) is not None}
  return sizes[model.variant]._replace(**overrides)


def check_model(model: nn.Module, sizes: Mapping[str, TextSize], *, name: str) -> None:
  """Checks the fields that the text models share; `name` starts the error line.

  Raises:
    UserError: an unknown variant or head, or a number below its least.
  """
  if model.variant not in sizes:
    raise UserError(f"{name}: variant {nearest(model.variant, sizes)}")
  if model.head not in ("untied", "tied"):
    raise UserError(f"{name}: head {nearest(model.head, ('untied', 'tied'))}")
  numbers = {"vocab_size": model.vocab_size} | size_of(model, sizes)._asdict()
  for key, value in numbers.items():
    if value < 1:
      raise UserError(f"{name}: {key} {value}, expected 1 or more")
  if not 0 <= model.dropout < 1:
    raise UserError(f"{name}: dropout {model.dropout}, expected a probability, from 0 to below 1")


class RMSNorm(nn.Module):
  """x / sqrt(mean(x^2) + 1e-6) * scale in float32, no mean subtracted and no bias.

  Source: Zhang, Sennrich, Root Mean Square Layer Normalization, 2019, arXiv 1910.07467.
  """

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Returns f32[..., D] for x[..., D]."""
    x = x.astype(jnp.float32)
    scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + RMS_NORM_EPSILON) * scale


class Embed(nn.Module):
  """A table of one vector a token id, initially N(0, init_std^2) and not scaled when read.

  Read backwards (`attend`) it gives logits.
  """

  vocab_size: int
  width: int
  dtype: precision.Dtype = "float32"
  init_std: float = 1.0

  def setup(self) -> None:
    """Makes the table."""
    init = nn.initializers.normal(self.init_std)
    self.embedding = self.param("embedding", init, (self.vocab_size, self.width), jnp.float32)

  def __call__(self, tokens: Array) -> Array:
    """Returns f32[..., D] for tokens int32[...]; not-a-number for ids beyond the table."""
    return jnp.take(self.embedding, tokens, axis=0)

  def attend(self, x: Array) -> Array:
    """Returns logits f32[B,L,V], x[B,L,D] times the table over sqrt(D): as large as an untied head's at the start."""
    return precision.einsum("bld,vd->blv", x, self.embedding, dtype=self.dtype) / self.width**0.5


def fold_in(keys: Array | None, number: Array | int) -> Array | None:
  """Returns keys key[B] with `number` folded into each; None for None."""
  return None if keys is None else jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


def dropout(x: Array, keys: Array | None, *, rate: float, site: int) -> Array:
  """Returns x[B,...,L,D] with numbers set to zero with probability `rate`, the others divided by 1 - rate.

  The choice is the same at all places of the axis before the last (T5: the sequence's) and example b is decided by
  keys[b] alone, so its place in the batch does not matter. x itself where `keys` is None.

  Args:
    keys: key[B]; None for no dropout.
    rate: probability.
    site: tells this call from others that are given the same keys.
  """
  if keys is None:
    return x
  shape = (*x.shape[1:-2], 1, x.shape[-1])
  kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - rate, shape))(fold_in(keys, site))
  return jnp.where(kept, x / (1.0 - rate), 0.0)


class GatedMLP(nn.Module):
  """(activation(x wi_0) * (x wi_1)) wo without biases; "gelu" is T5.1.1's (its tanh form), "silu" is SwiGLU.

  Source: Shazeer, GLU Variants Improve Transformer, 2020, arXiv 2002.05202.
  """

  hidden: int
  activation: Activation = "gelu"
  dropout: float = 0.0
  dtype: precision.Dtype = "float32"

  def _dense(self, features: int, name: str, init: Initializer = MLP_INIT) -> Dense:
    return Dense(features, bias="absent", kernel_init=init, dtype=self.dtype, name=name)

  @nn.compact
  def __call__(self, x: Array, keys: Array | None = None) -> Array:
    """Returns f32[B,L,D] for x[B,L,D]; `keys` are those of `dropout`, on the hidden numbers."""
    hidden = ACTIVATIONS[self.activation](self._dense(self.hidden, "wi_0")(x)) * self._dense(self.hidden, "wi_1")(x)
    hidden = dropout(sharding.split_last(hidden), keys, rate=self.dropout, site=0)
    return self._dense(x.shape[-1], "wo")(hidden)
