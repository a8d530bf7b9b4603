"""T5's encoder and decoder: the layers, stacked, with their relative positions and last norm."""

from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from ssljax import precision, sharding
from ssljax.models.attention import ATTENTION_INIT, Attention, KeyValue, causal, same_segment
from ssljax.models.blocks import Remat, layers_a_turn, stacked
from ssljax.models.relative_bias import RelativeBias
from ssljax.models.text_layers import GatedMLP, RMSNorm, TextSize, dropout, fold_in
from ssljax.types import Array

EMBEDDING, LAST = 2**31 - 1, 2**31 - 2  # dropout outside of the layers, whose numbers start at 0


class EncoderShared(NamedTuple):
  """What all layers of the encoder are given: allowed bool[B,L,L], bias f32[H,L,L], random keys key[B] or None."""

  allowed: Array
  bias: Array
  keys: Array | None


class DecoderShared(NamedTuple):
  """What all layers of the decoder are given.

  Attributes:
    allowed: bool[B or 1,T,K], for self-attention.
    bias: f32[H,T,K], for self-attention.
    encoded: f32[B,Li,D], the encoder's output; None where the cache holds its keys and values.
    readable: bool[B,T or 1,Li], for cross-attention.
    index: int32[], the place of the first query in the cache; None without cache.
    keys: key[B], random keys for dropout; None for none.
  """

  allowed: Array
  bias: Array
  encoded: Array | None
  readable: Array
  index: Array | None = None
  keys: Array | None = None


class DecoderCache(NamedTuple):
  """Keys and values of a layer: `own` of the decoder's places, `cross` of the encoder's (None until computed)."""

  own: KeyValue
  cross: KeyValue | None


class _Layer(nn.Module):
  """What layers of both stacks have: an attention whose query's kernel starts divided by sqrt(d), and an MLP."""

  size: TextSize
  dropout: float
  dtype: precision.Dtype

  def _attention(self, name: str) -> Attention:
    size = self.size
    query_init = lambda *args: ATTENTION_INIT(*args) / size.head_width**0.5
    options = {"query_init": query_init, "dropout": self.dropout, "dtype": self.dtype}
    return Attention(size.heads, size.head_width, size.width, name=name, **options)

  def _drop(self, y: Array, keys: Array | None) -> Array:
    return dropout(y, keys, rate=self.dropout, site=1)

  def _mlp(self, x: Array, keys: Array | None) -> Array:
    mlp = GatedMLP(self.size.hidden, "gelu", self.dropout, self.dtype, name="mlp")
    return self._drop(mlp(RMSNorm(name="pre_mlp_layer_norm")(x), keys), keys)


class EncoderLayer(_Layer):
  """x + attention(norm(x)), then x + mlp(norm(x))."""

  @nn.compact
  def __call__(self, x: Array, shared: EncoderShared, layer: Array) -> tuple[Array, None]:
    """Returns f32[B,L,D] for x[B,L,D] and the layer's number int32[]."""
    keys = [fold_in(fold_in(shared.keys, layer), branch) for branch in range(2)]
    y = RMSNorm(name="pre_attention_layer_norm")(x)
    attention = self._attention("attention")
    y = attention(y, attention.key_value(y), allowed=shared.allowed, bias=shared.bias, keys=keys[0])
    x = x + self._drop(y, keys[0])
    return sharding.constrain(x + self._mlp(x, keys[1])), None


class DecoderLayer(_Layer):
  """x + attention(norm(x)), then x + attention(norm(x), encoded), then x + mlp(norm(x))."""

  def _self_attention(self, x: Array, shared: DecoderShared, own: KeyValue | None, keys: Array | None):
    y = RMSNorm(name="pre_self_attention_layer_norm")(x)
    attention = self._attention("self_attention")
    kv = attention.key_value(y)
    kv = kv if own is None else own.write(kv, shared.index)
    y = attention(y, kv, allowed=shared.allowed, bias=shared.bias, keys=keys)
    return self._drop(y, keys), kv

  def _cross_attention(self, x: Array, shared: DecoderShared, cross: KeyValue | None, keys: Array | None):
    y = RMSNorm(name="pre_cross_attention_layer_norm")(x)
    attention = self._attention("encoder_decoder_attention")
    kv = attention.key_value(shared.encoded) if cross is None else cross
    return self._drop(attention(y, kv, allowed=shared.readable, keys=keys), keys), kv

  @nn.compact
  def __call__(
    self, x: Array, shared: DecoderShared, each: tuple[Array, DecoderCache | None]
  ) -> tuple[Array, DecoderCache | None]:
    """Returns f32[B,T,D] for x[B,T,D] and the cache with this call's keys and values; None for None."""
    layer, cache = each
    keys = [fold_in(fold_in(shared.keys, layer), branch) for branch in range(3)]
    y, own = self._self_attention(x, shared, cache and cache.own, keys[0])
    x = x + y
    y, cross = self._cross_attention(x, shared, cache and cache.cross, keys[1])
    x = x + y
    x = sharding.constrain(x + self._mlp(x, keys[2]))
    return x, None if cache is None else DecoderCache(own, cross)


class _Stack(nn.Module):
  """What both stacks have: embedded tokens in, dropout around the layers, the last norm."""

  size: TextSize
  dropout: float = 0.0
  dtype: precision.Dtype = "float32"
  remat: Remat = "none"
  unroll: int | None = None

  def _layers(self, layer: type[_Layer]) -> nn.Module:
    turn = layers_a_turn(self, depth=self.size.depth, unroll=self.unroll)
    layers = stacked(layer, depth=self.size.depth, turn=turn, remat=self.remat)
    return layers(self.size, self.dropout, self.dtype, name="blocks")

  def _drop(self, x: Array, keys: Array | None, site: int) -> Array:
    return dropout(x, fold_in(keys, site), rate=self.dropout, site=0)


class Encoder(_Stack):
  """All places of a segment look at each other."""

  @nn.compact
  def __call__(self, x: Array, segments: Array, keys: Array | None = None) -> Array:
    """Returns f32[B,L,D] for embedded tokens x[B,L,D] in segments int32[B,L]; `keys` key[B] are for dropout."""
    places = jnp.arange(x.shape[1])
    bias = RelativeBias(self.size.heads, "both", name="relpos_bias")(places, places)
    shared = EncoderShared(same_segment(segments, segments), bias, keys)
    x = sharding.constrain(self._drop(x, keys, EMBEDDING))
    x, _ = self._layers(EncoderLayer)(x, shared, jnp.arange(self.size.depth))
    return self._drop(RMSNorm(name="encoder_norm")(x), keys, LAST)


class Decoder(_Stack):
  """Places of a segment look at earlier ones and at the encoder's segment of the same number."""

  def setup(self) -> None:
    """Makes the parts, which training and generation call."""
    self.relpos_bias = RelativeBias(self.size.heads, "causal")
    self.blocks = self._layers(DecoderLayer)
    self.decoder_norm = RMSNorm()

  def __call__(
    self, x: Array, encoded: Array, segments: Array, input_segments: Array, keys: Array | None = None
  ) -> Array:
    """Returns f32[B,T,D] for embedded tokens x[B,T,D] and encoded f32[B,Li,D] in segments int32[B,T], int32[B,Li]."""
    places = jnp.arange(x.shape[1])
    allowed = same_segment(segments, segments) & causal(x.shape[1])
    readable = same_segment(segments, input_segments)
    shared = DecoderShared(allowed, self.relpos_bias(places, places), encoded, readable, keys=keys)
    x = sharding.constrain(self._drop(x, keys, EMBEDDING))
    x, _ = self.blocks(x, shared, (jnp.arange(self.size.depth), None))
    return self._drop(self.decoder_norm(x), keys, LAST)

  def step(
    self, x: Array, cache: DecoderCache, *, index: Array, readable: Array, encoded: Array | None = None
  ) -> tuple[Array, DecoderCache]:
    """Returns f32[B,1,D] for one embedded token x[B,1,D] at place `index` int32[], and the cache with it.

    Args:
      cache: of all layers, stacked; length K.
      index: places before it are filled.
      readable: bool[B,Li], which of the encoder's places to look at.
      encoded: f32[B,Li,D] at the first step, when cache.cross is None; None later.
    """
    places = jnp.arange(cache.own.key.shape[2])
    bias = self.relpos_bias(index[None], places)
    shared = DecoderShared((places <= index)[None, None], bias, encoded, readable[:, None], index)
    x, cache = self.blocks(x, shared, (jnp.arange(self.size.depth), cache))
    return self.decoder_norm(x), cache
