"""Multi-head attention between segments, with keys and values that can be kept: training, packing and generation."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from ssljax import precision, sharding
from ssljax.models.layers import ATTENTION, Dense, Initializer
from ssljax.models.text_layers import dropout
from ssljax.types import Array

MASKED = -1e10  # finite: the row of a query that may look at nothing stays finite too
ATTENTION_INIT = nn.initializers.variance_scaling(1.0, "fan_in", "normal")


class KeyValue(NamedTuple):
  """Keys and values [B,K,H,d] of K places in the compute dtype; for a stack of layers [layers,B,K,H,d]."""

  key: Array
  value: Array

  def write(self, new: "KeyValue", index: Array) -> "KeyValue":
    """Returns these with `new` [B,N,H,d] in the places from `index` int32[] on."""
    put = lambda old, part: jax.lax.dynamic_update_slice_in_dim(old, part.astype(old.dtype), index, axis=1)
    return jax.tree.map(put, self, new)


def empty_cache(*, layers: int, batch: int, length: int, heads: int, head_width: int, dtype: str) -> KeyValue:
  """Returns keys and values [layers,batch,length,heads,head_width] of zeros in `dtype`."""
  zeros = jnp.zeros((layers, batch, length, heads, head_width), dtype)
  return KeyValue(zeros, zeros)


def same_segment(query: Array, key: Array) -> Array:
  """Returns bool[B,Q,K], whether query and key places int32[B,Q], int32[B,K] carry the same segment number.

  Padding (0) is a segment as well: it looks at padding alone and nothing looks at it.
  """
  return query[:, :, None] == key[:, None, :]


def causal(length: int) -> Array:
  """Returns bool[1,L,L], whether the key's index is at most the query's."""
  return jnp.tril(jnp.ones((1, length, length), bool))


def rotary(x: Array, positions: Array, *, base: float = 10_000.0) -> Array:
  """Returns x f32[B,L,H,d] turned by its positions: for i < d/2 the pair (x_i, x_{i+d/2}) by positions * base^(-2i/d).

  The product of a query and a key then depends on the difference of their positions alone.

  Args:
    positions: int32[B,L], tokens.
    base: the slowest pair turns about once in 2 pi base tokens.

  Source: Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding, 2021, arXiv 2104.09864.
  Differs from the reference: pairs are halves apart, as in Llama's published weights, not neighbours.
  """
  half = x.shape[-1] // 2
  angles = positions[..., None, None] * base ** (-jnp.arange(half) / half)
  cos, sin = jnp.cos(angles), jnp.sin(angles)
  a, b = x[..., :half], x[..., half:]
  return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


class Attention(nn.Module):
  """softmax(scale q k^T + bias) v over the allowed keys, then the product `out`; no biases in the products.

  Softmax and logits are float32. A query without any allowed key gets zeros.

  Attributes:
    heads, head_width: number of heads and width of each.
    width: width of the result.
    scale: factor of the logits.
    query_init: initialisation of the query's kernel; T5 puts 1 / sqrt(head_width) here and not into `scale`.
    dropout: rate for the softmax's weights.
    dtype: what operands of products are rounded to.

  Source: Vaswani et al., Attention Is All You Need, 2017, arXiv 1706.03762.
  """

  heads: int
  head_width: int
  width: int
  scale: float = 1.0
  query_init: Initializer = ATTENTION_INIT
  dropout: float = 0.0
  dtype: precision.Dtype = "float32"

  def setup(self) -> None:
    """Makes the four products."""
    product = lambda features, init: Dense(features, bias="absent", kernel_init=init, dtype=self.dtype)
    inner = self.heads * self.head_width
    self.query = product(inner, self.query_init)
    self.key = product(inner, ATTENTION_INIT)
    self.value = product(inner, ATTENTION_INIT)
    self.out = product(self.width, ATTENTION_INIT)

  def _heads(self, x: Array) -> Array:
    return sharding.split_heads(x.reshape(*x.shape[:-1], self.heads, self.head_width))

  def key_value(self, x: Array, positions: Array | None = None) -> KeyValue:
    """Returns keys and values of x[B,K,D]; keys are turned by `positions` int32[B,K] where given (`rotary`)."""
    key = self._heads(self.key(x))
    key = key if positions is None else rotary(key, positions)
    return KeyValue(key.astype(self.dtype), self._heads(self.value(x)).astype(self.dtype))

  def __call__(
    self,
    x: Array,
    kv: KeyValue,
    *,
    allowed: Array,
    bias: Array | None = None,
    positions: Array | None = None,
    keys: Array | None = None,
  ) -> Array:
    """Returns f32[B,Q,width].

    Args:
      x: f32[B,Q,D], what asks.
      kv: keys and values [B,K,H,d], of `key_value`.
      allowed: bool[B or 1,Q or 1,K], which keys a query may look at.
      bias: f32[H,Q,K], added to the logits.
      positions: int32[B,Q], turns the queries (`rotary`); None for no turn.
      keys: key[B], random keys for dropout; None for none.
    """
    query = self._heads(self.query(x))
    query = (query if positions is None else rotary(query, positions)).astype(self.dtype)
    logits = precision.einsum("bqhd,bkhd->bhqk", query, kv.key, dtype=self.dtype) * self.scale
    logits = logits if bias is None else logits + bias
    weights = jax.nn.softmax(jnp.where(allowed[:, None], logits, MASKED), axis=-1)
    weights = dropout(weights, keys, rate=self.dropout, site=0).astype(self.dtype)
    mixed = precision.einsum("bhqk,bkhd->bqhd", weights, kv.value, dtype=self.dtype)
    mixed = jnp.where(jnp.any(allowed, axis=-1)[..., None, None], mixed, 0.0)
    mixed = sharding.split_last(mixed.reshape(*x.shape[:-1], -1))
    return self.out(checkpoint_name(mixed, ATTENTION))
