"""T5.1.1, an encoder and a decoder for text, in the published sizes and UL2's."""

from typing import Literal, NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from ssljax import precision
from ssljax.models.attention import empty_cache
from ssljax.models.blocks import Remat
from ssljax.models.layers import Dense
from ssljax.models.t5_stacks import Decoder, DecoderCache, Encoder
from ssljax.models.text_layers import MLP_INIT, Embed, TextSize, check_model, fold_in, size_of
from ssljax.types import Array

SIZES = {
  "small": TextSize(512, 8, 6, 64, 1024),
  "base": TextSize(768, 12, 12, 64, 2048),
  "large": TextSize(1024, 24, 16, 64, 2816),
  "xl": TextSize(2048, 24, 32, 64, 5120),
  "xxl": TextSize(4096, 24, 64, 64, 10240),
  "20b": TextSize(4096, 32, 16, 256, 16384),
}


class T5Cache(NamedTuple):
  """What generation keeps between tokens.

  Attributes:
    layers: keys and values of all decoder layers, stacked.
    index: int32[], the next token's place.
    readable: bool[B,Li], which of the encoder's places hold tokens.
  """

  layers: DecoderCache
  index: Array
  readable: Array


class T5(nn.Module):
  """T5 version 1.1: pre-norm with RMS norms, gated MLPs, relative positions, no biases in products.

  A place looks at places of its own segment only, so examples may share a row; segment 0 is padding.

  Attributes:
    vocab_size: number of token ids; 0 is padding and the decoder's first input.
    variant: size; width, depth (of each stack), heads, head_width and hidden override it one by one.
    head: logits by a product of their own, or by the embedding divided by sqrt(width).
    dropout: rate wherever `keys` are given: after the embeddings, on the attention's weights, on the MLP's hidden
      numbers, on the branches and after the last norms.
    dtype: the type the operands of matrix products are rounded to; sums, softmax and norms are float32.
    remat: what the backward pass computes again, as in `blocks.Blocks`.
    unroll: layers a turn of the compiled loop; None for all on a CPU and one elsewhere.

  Raises:
    UserError: an unknown variant or head, or a number below its least, at construction.

  Source: Raffel et al., Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer, 2019,
  arXiv 1910.10683; version 1.1 is the authors' t5x code; size 20b of Tay et al., UL2: Unifying Language Learning
  Paradigms, 2022, arXiv 2205.05131.
  Differs from the reference: with dtype bfloat16 the sum of the branches stays float32, and the operands of the
  last product are rounded as all others.
  """

  vocab_size: int
  variant: Literal["small", "base", "large", "xl", "xxl", "20b"] = "base"
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
    check_model(self, SIZES, name="t5.T5")

  @property
  def size(self) -> TextSize:
    """The variant's size with the overrides applied."""
    return size_of(self, SIZES)

  @property
  def features(self) -> int:
    """Length of the encoder's vectors."""
    return self.size.width

  def setup(self) -> None:
    """Makes the embedding, which both stacks share, the stacks and the head."""
    options = {"dropout": self.dropout, "dtype": self.dtype, "remat": self.remat, "unroll": self.unroll}
    self.token_embedder = Embed(self.vocab_size, self.features, self.dtype)
    self.encoder = Encoder(self.size, **options)
    self.decoder = Decoder(self.size, **options)
    if self.head == "untied":
      self.logits_dense = Dense(self.vocab_size, bias="absent", kernel_init=MLP_INIT, dtype=self.dtype)

  def _logits(self, x: Array) -> Array:
    return self.token_embedder.attend(x) if self.head == "tied" else self.logits_dense(x)

  def _keys(self, keys: Array | None, stack: int) -> Array | None:
    return fold_in(keys, stack) if self.dropout else None

  def encode(self, inputs: Array, segments: Array, keys: Array | None = None) -> Array:
    """Returns f32[B,Li,D] for tokens int32[B,Li] in segments int32[B,Li]; `keys` key[B] are for dropout."""
    return self.encoder(self.token_embedder(inputs), segments, self._keys(keys, 0))

  def decode(
    self,
    encoded: Array,
    targets_in: Array,
    input_segments: Array,
    target_segments: Array,
    keys: Array | None = None,
  ) -> Array:
    """Returns logits f32[B,Lt,V] for the encoder's output f32[B,Li,D]; the rest is as in `__call__`."""
    x = self.token_embedder(targets_in)
    return self._logits(self.decoder(x, encoded, target_segments, input_segments, self._keys(keys, 1)))

  def __call__(
    self,
    inputs: Array,
    targets_in: Array,
    *,
    input_segments: Array,
    target_segments: Array,
    keys: Array | None = None,
  ) -> Array:
    """Returns logits f32[B,Lt,V].

    Args:
      inputs: int32[B,Li], the encoder's tokens.
      targets_in: int32[B,Lt], the targets shifted right inside of each segment, 0 first.
      input_segments: int32[B,Li], 0 for padding, 1.. for the examples of a row.
      target_segments: int32[B,Lt], likewise.
      keys: key[B], the rows' keys for dropout; None for none.
    """
    encoded = self.encode(inputs, input_segments, keys)
    return self.decode(encoded, targets_in, input_segments, target_segments, keys)

  def prefill(self, prompt: Array, *, length: int) -> tuple[Array, T5Cache]:
    """Returns the first target's logits f32[B,V] and the cache for `length` targets.

    Args:
      prompt: int32[B,Li], the encoder's tokens, one example a row; 0 is padding.
    """
    encoded = self.encode(prompt, (prompt != 0).astype(jnp.int32))
    size, batch = self.size, len(prompt)
    own = empty_cache(
      layers=size.depth, batch=batch, length=length, heads=size.heads, head_width=size.head_width, dtype=self.dtype
    )
    cache = T5Cache(DecoderCache(own, None), jnp.zeros((), jnp.int32), prompt != 0)
    return self._step(jnp.zeros(batch, jnp.int32), cache, encoded)

  def step(self, tokens: Array, cache: T5Cache) -> tuple[Array, T5Cache]:
    """Returns the logits f32[B,V] of the targets after `tokens` int32[B], and the cache with these."""
    return self._step(tokens, cache, None)

  def _step(self, tokens: Array, cache: T5Cache, encoded: Array | None) -> tuple[Array, T5Cache]:
    x, layers = self.decoder.step(
      self.token_embedder(tokens[:, None]), cache.layers, index=cache.index, readable=cache.readable, encoded=encoded
    )
    return self._logits(x)[:, 0], T5Cache(layers, cache.index + 1, cache.readable)
