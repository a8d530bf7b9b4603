"""A decoder-only language model whose prefix is read in both directions."""

from typing import Literal, NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from ssljax import precision, sharding
from ssljax.errors import UserError
from ssljax.models.attention import Attention, KeyValue, causal, empty_cache, same_segment
from ssljax.models.blocks import Remat, layers_a_turn, stacked
from ssljax.models.layers import Dense
from ssljax.models.text_layers import (
  MLP_INIT,
  Embed,
  GatedMLP,
  RMSNorm,
  TextSize,
  check_model,
  dropout,
  fold_in,
  size_of,
)
from ssljax.types import Array

SIZES = {  # Llama's rule for the MLP: 8/3 of the width, up to the next multiple of 256
  "tiny": TextSize(256, 4, 4, 64, 768),
  "small": TextSize(512, 8, 8, 64, 1536),
  "base": TextSize(768, 12, 12, 64, 2048),
  "1b": TextSize(2048, 16, 16, 128, 5632),
}
EMBEDDING = 2**31 - 1  # dropout outside of the layers, whose numbers start at 0


class Shared(NamedTuple):
  """What all layers are given.

  Attributes:
    allowed: bool[B,Q,K], which keys a query may look at.
    positions: int32[B,Q], tokens.
    index: int32[], the first query's place in the cache; None without cache.
    keys: key[B], random keys for dropout; None for none.
  """

  allowed: Array
  positions: Array
  index: Array | None = None
  keys: Array | None = None


class PrefixCache(NamedTuple):
  """What generation keeps between tokens.

  Attributes:
    layers: keys and values of all layers, stacked: [layers,B,K,H,d].
    index: int32[], the next token's place in the cache.
    positions: int32[B], the next token's position.
    readable: bool[B,K], which places hold tokens.
  """

  layers: KeyValue
  index: Array
  positions: Array
  readable: Array


class Layer(nn.Module):
  """x + attention(norm(x)), then x + mlp(norm(x))."""

  size: TextSize
  dropout: float = 0.0
  dtype: precision.Dtype = "float32"

  def _attend(self, x: Array, shared: Shared, cache: KeyValue | None, keys: Array | None) -> tuple[Array, KeyValue]:
    size = self.size
    options = {"scale": size.head_width**-0.5, "dropout": self.dropout, "dtype": self.dtype}
    attention = Attention(size.heads, size.head_width, size.width, name="attention", **options)
    y = RMSNorm(name="pre_attention_layer_norm")(x)
    kv = attention.key_value(y, shared.positions)
    kv = kv if cache is None else cache.write(kv, shared.index)
    return attention(y, kv, allowed=shared.allowed, positions=shared.positions, keys=keys), kv

  @nn.compact
  def __call__(self, x: Array, shared: Shared, each: tuple[Array, KeyValue | None]) -> tuple[Array, KeyValue | None]:
    """Returns f32[B,Q,D] for x[B,Q,D], and the cache with this call's keys and values; None for None."""
    layer, cache = each
    keys = [fold_in(fold_in(shared.keys, layer), branch) for branch in range(2)]
    y, kv = self._attend(x, shared, cache, keys[0])
    x = x + dropout(y, keys[0], rate=self.dropout, site=1)
    mlp = GatedMLP(self.size.hidden, "silu", self.dropout, self.dtype, name="mlp")
    y = mlp(RMSNorm(name="pre_mlp_layer_norm")(x), keys[1])
    x = x + dropout(y, keys[1], rate=self.dropout, site=1)
    return sharding.constrain(x), None if cache is None else kv


class PrefixLM(nn.Module):
  """Pre-norm with RMS norms, SwiGLU, rotary positions and no biases in products; one stack of layers.

  A place looks at the places of its own segment that are not after it or are prefix; segment 0 is padding. Embeddings
  start as N(0, 1), kernels as fan-in.

  Attributes:
    vocab_size: number of token ids; 0 is padding and the first input of a segment.
    variant: size; width, depth, heads, head_width and hidden override it one by one.
    head: logits by a product of their own, or by the embedding divided by sqrt(width).
    dropout: rate wherever `keys` are given: after the embedding, on the attention's weights, on the MLP's hidden
      numbers and on the branches.
    dtype: the type the operands of matrix products are rounded to; sums, softmax and norms are float32.
    remat: what the backward pass computes again, as in `blocks.Blocks`.
    unroll: layers a turn of the compiled loop; None for all on a CPU and one elsewhere.

  Raises:
    UserError: an unknown variant or head, a number below its least or an odd head_width, at construction.

  Source: the architecture of Touvron et al., LLaMA: Open and Efficient Foundation Language Models, 2023, arXiv
  2302.13971, with the prefix mask of Raffel et al., 2019, arXiv 1910.10683, and the initialisation of Chowdhery et
  al., PaLM: Scaling Language Modeling with Pathways, 2022, arXiv 2204.02311.
  """

  vocab_size: int
  variant: Literal["tiny", "small", "base", "1b"] = "base"
  width: int | None = None
  depth: int | None = None
  heads: int | None = None
  head_width: int | None = None
  hidden: int | None = None
  head: Literal["untied", "tied"] = "untied"
  dropout: float = 0.0
  dtype: precision.Dtype = "float32"
  remat: Remat = "none"
  unroll: int | None = None

  def __post_init__(self):
    super().__post_init__()
    check_model(self, SIZES, name="prefix_lm.PrefixLM")
    if self.size.head_width % 2:
      raise UserError(f"prefix_lm.PrefixLM: head_width {self.size.head_width}, expected an even number (rotary pairs)")

  @property
  def size(self) -> TextSize:
    """The variant's size with the overrides applied."""
    return size_of(self, SIZES)

  @property
  def features(self) -> int:
    """Length of the last layer's vectors."""
    return self.size.width

  def setup(self) -> None:
    """Makes the embedding, the layers, the last norm and the head."""
    turn = layers_a_turn(self, depth=self.size.depth, unroll=self.unroll)
    layers = stacked(Layer, depth=self.size.depth, turn=turn, remat=self.remat)
    self.token_embedder = Embed(self.vocab_size, self.features, self.dtype)
    self.blocks = layers(self.size, self.dropout, self.dtype)
    self.norm = RMSNorm()
    if self.head == "untied":
      self.logits_dense = Dense(self.vocab_size, bias="absent", kernel_init=MLP_INIT, dtype=self.dtype)

  def _run(self, tokens: Array, shared: Shared, cache: KeyValue | None = None) -> tuple[Array, KeyValue | None]:
    x = dropout(self.token_embedder(tokens), fold_in(shared.keys, EMBEDDING), rate=self.dropout, site=0)
    x, cache = self.blocks(sharding.constrain(x), shared, (jnp.arange(self.size.depth), cache))
    return self.norm(x), cache

  def _logits(self, x: Array) -> Array:
    return self.token_embedder.attend(x) if self.head == "tied" else self.logits_dense(x)

  def __call__(
    self, tokens_in: Array, *, segments: Array, positions: Array, prefix: Array, keys: Array | None = None
  ) -> Array:
    """Returns logits f32[B,L,V].

    Args:
      tokens_in: int32[B,L], the tokens shifted right inside of each segment, 0 first.
      segments: int32[B,L], 0 for padding, 1.. for the examples of a row.
      positions: int32[B,L], from 0 in every segment, tokens.
      prefix: bool[B,L], which of `tokens_in` the whole segment may look at.
      keys: key[B], the rows' keys for dropout; None for none.
    """
    return self._logits(self.vectors(tokens_in, segments=segments, positions=positions, prefix=prefix, keys=keys))

  def vectors(
    self, tokens_in: Array, *, segments: Array, positions: Array, prefix: Array, keys: Array | None = None
  ) -> Array:
    """Returns the last layer's vectors f32[B,L,D], normalised; arguments as for `__call__`."""
    allowed = same_segment(segments, segments) & (causal(tokens_in.shape[1]) | prefix[:, None, :])
    keys = keys if self.dropout else None
    return self._run(tokens_in, Shared(allowed, positions, keys=keys))[0]

  def prefill(self, prompt: Array, *, length: int) -> tuple[Array, PrefixCache]:
    """Returns the logits f32[B,V] of the token after each prompt, and the cache for `length` tokens more.

    Args:
      prompt: int32[B,P], one example a row, all of it prefix; 0 is padding, in front or behind.
    """
    tokens, size = jnp.pad(prompt, ((0, 0), (1, 0))), self.size
    present = jnp.pad(prompt != 0, ((0, 0), (1, 0)), constant_values=True)
    positions = jnp.cumsum(present, axis=1) - 1
    readable = jnp.pad(present, ((0, 0), (0, length - 1)))  # the last token generated is not read
    empty = empty_cache(
      layers=size.depth,
      batch=len(prompt),
      length=readable.shape[1],
      heads=size.heads,
      head_width=size.head_width,
      dtype=self.dtype,
    )
    x, layers = self._run(tokens, Shared(readable[:, None], positions, jnp.zeros((), jnp.int32)), empty)
    last = jnp.max(jnp.where(present, jnp.arange(tokens.shape[1]), 0), axis=1)
    x = jnp.take_along_axis(x, last[:, None, None], axis=1)
    index = jnp.asarray(tokens.shape[1], jnp.int32)
    return self._logits(x)[:, 0], PrefixCache(layers, index, positions[:, -1] + 1, readable)

  def step(self, tokens: Array, cache: PrefixCache) -> tuple[Array, PrefixCache]:
    """Returns the logits f32[B,V] of what follows `tokens` int32[B], and the cache with these."""
    readable = cache.readable.at[:, cache.index].set(True)
    shared = Shared(readable[:, None], cache.positions[:, None], cache.index)
    x, layers = self._run(tokens[:, None], shared, cache.layers)
    return self._logits(x)[:, 0], PrefixCache(layers, cache.index + 1, cache.positions + 1, readable)
