"""BERT's encoder: what sentence encoders such as MiniLM are, and a text tower that comes pretrained."""

from typing import Literal

import jax.numpy as jnp
from flax import linen as nn

from ssljax import precision
from ssljax.models.blocks import Remat
from ssljax.models.layers import ACTIVATIONS, Activation, LayerNorm
from ssljax.models.text_layers import Embed
from ssljax.models.text_tower import check_tower, positions, tower_blocks
from ssljax.types import Array

INIT_STD = 0.02
CHOICES = {"pooling": ("cls", "mean", "max"), "activation": tuple(ACTIVATIONS)}


class Bert(nn.Module):
  """A post-norm transformer over token ids in both directions; nothing looks at padding.

  Attributes:
    vocab_size: number of token ids.
    length: most tokens a text has; there is a learnt position for each.
    width, depth, heads, mlp_ratio: size of the residual stream and of the blocks.
    types: number of kinds of segments, each with a learnt vector (sentence A and B).
    padding: the id of padding, read where no mask is given.
    pooling: what "embedding" is: the first token ("cls"), or the mean or, number by number, the largest of those that
      are not padding ("mean", MiniLM; "max", ConVIRT).
    activation: of the MLPs, as in `vit.ViT`.
    drop_path: probability of dropping a branch in the last block; it grows linearly from 0 in the first.
    norm_epsilon: added to the variance in all layer norms.
    dtype: the type the operands of matrix products are rounded to.
    remat, unroll: as in `blocks.Blocks`.

  Raises:
    UserError: a number below 1, a width that the heads do not divide, an unknown choice, at construction.

  Source: Devlin et al., BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding, 2018, arXiv
  1810.04805; mean pooling of Reimers, Gurevych, Sentence-BERT, 2019, arXiv 1908.10084.
  Differs from the reference: the kernels of the blocks start as those of `vit.ViT` do, there is no dropout inside of
  the branches, and no dense layer behind the first token.
  """

  vocab_size: int
  length: int = 512
  width: int = 768
  depth: int = 12
  heads: int = 12
  mlp_ratio: float = 4.0
  types: int = 2
  padding: int = 0
  pooling: Literal["cls", "mean", "max"] = "cls"
  activation: Activation = "gelu"
  drop_path: float = 0.0
  norm_epsilon: float = 1e-12
  dtype: precision.Dtype = "float32"
  remat: Remat = "none"
  unroll: int | None = None

  def __post_init__(self):
    super().__post_init__()
    check_tower(self, CHOICES, name="bert.Bert")

  @property
  def features(self) -> int:
    """Length of the embedding."""
    return self.width

  @nn.compact
  def __call__(
    self,
    tokens: Array,
    *,
    mask: Array | None = None,
    types: Array | None = None,
    keys: Array | None = None,
    train: bool = False,
  ) -> dict[str, Array]:
    """Returns "embedding" f32[B,D] and "tokens" f32[B,L,D].

    Args:
      tokens: int32[B,L], token ids.
      mask: bool[B,L] or int[B,L], true (1) where there is text; None: where the id is not `padding`.
      types: int32[B,L], kinds of segments; None for all 0.
      keys: key[B], the examples' keys for stochastic depth; None for none.
      train: unused, there are no batch statistics.
    """
    del train
    real = (tokens != self.padding) if mask is None else mask.astype(bool)
    x = Embed(self.vocab_size, self.width, init_std=INIT_STD, name="token_embedder")(tokens)
    kinds = self.param("type_embed", nn.initializers.normal(INIT_STD), (self.types, self.width))
    x = x + (kinds[0] if types is None else kinds[types]) + positions(self, tokens.shape[1], std=INIT_STD)
    x = LayerNorm(self.norm_epsilon, name="norm_pre")(x)
    x = tower_blocks(self, norms="post")(x, keys, real[:, None, :])
    return {"embedding": self._pool(x, real[..., None]), "tokens": x}

  def _pool(self, x: Array, real: Array) -> Array:
    """Returns f32[B,D] of tokens x f32[B,L,D] where real bool[B,L,1]; zeros where no token is."""
    if self.pooling == "cls":
      return x[:, 0]
    if self.pooling == "max":
      largest = jnp.max(x, axis=1, where=real, initial=-jnp.inf)
      return jnp.where(jnp.any(real, axis=1), largest, 0.0)
    return jnp.sum(x * real, axis=1) / jnp.maximum(jnp.sum(real, axis=1), 1)
