"""A text tower: the transformer that reads captions in CLIP (causal) and in SigLIP (in both directions)."""

from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn

from ssljax import precision
from ssljax.errors import UserError, nearest
from ssljax.models.attention import causal
from ssljax.models.blocks import Blocks, Remat
from ssljax.models.layers import ACTIVATIONS, Activation, LayerNorm
from ssljax.models.text_layers import Embed
from ssljax.types import Array

EMBEDDING_STD, POSITION_STD = 0.02, 0.01  # CLIP's
CHOICES = {"attention": ("causal", "all"), "pooling": ("eos", "last"), "activation": tuple(ACTIVATIONS)}


class TextTower(nn.Module):
  """A pre-norm transformer over token ids with learnt positions; nothing is masked as padding.

  Attributes:
    vocab_size: number of token ids.
    length: most tokens a text has; there is a position for each.
    width, depth, heads, mlp_ratio: size of the residual stream and of the blocks.
    attention: what a token looks at: itself and what is before it ("causal", CLIP) or the whole row ("all", SigLIP).
    pooling: which token is the embedding, after the last norm: the end of the text ("eos", CLIP) or the last of the
      row, be it padding ("last", SigLIP: rows are padded to `length`).
    eos: id of the end of a text, the first one counts; None: the largest id of the row is it (CLIP's vocabulary).
    activation: of the MLPs, as in `vit.ViT`.
    drop_path: probability of dropping a branch in the last block; it grows linearly from 0 in the first.
    norm_epsilon: added to the variance in all layer norms (CLIP's 1e-5; SigLIP has 1e-6).
    dtype: the type the operands of matrix products are rounded to.
    remat, unroll: as in `blocks.Blocks`.

  Raises:
    UserError: a number below 1, a width that the heads do not divide, an unknown choice, at construction.

  Source: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021, arXiv
  2103.00020; Zhai et al., Sigmoid Loss for Language Image Pre-Training, 2023, arXiv 2303.15343.
  Differs from the reference: the blocks start as those of `vit.ViT` do (SigLIP's way).
  """

  vocab_size: int
  length: int = 77
  width: int = 512
  depth: int = 12
  heads: int = 8
  mlp_ratio: float = 4.0
  attention: Literal["causal", "all"] = "causal"
  pooling: Literal["eos", "last"] = "eos"
  eos: int | None = None
  activation: Activation = "gelu"
  drop_path: float = 0.0
  norm_epsilon: float = 1e-5
  dtype: precision.Dtype = "float32"
  remat: Remat = "none"
  unroll: int | None = None

  def __post_init__(self):
    super().__post_init__()
    check_tower(self, CHOICES, name="text_tower.TextTower")

  @property
  def features(self) -> int:
    """Length of the embedding."""
    return self.width

  @nn.compact
  def __call__(self, tokens: Array, *, keys: Array | None = None, train: bool = False) -> dict[str, Array]:
    """Returns "embedding" f32[B,D] and "tokens" f32[B,L,D].

    Args:
      tokens: int32[B,L], token ids.
      keys: key[B], the examples' keys for stochastic depth; None for none.
      train: unused, there are no batch statistics.
    """
    del train
    x = Embed(self.vocab_size, self.width, init_std=EMBEDDING_STD, name="token_embedder")(tokens)
    x = x + positions(self, tokens.shape[1], std=POSITION_STD)
    allowed = causal(tokens.shape[1]) if self.attention == "causal" else None
    x = LayerNorm(self.norm_epsilon, name="norm")(tower_blocks(self)(x, keys, allowed))
    return {"embedding": self._pool(x, tokens), "tokens": x}

  def _pool(self, x: Array, tokens: Array) -> Array:
    if self.pooling == "last":
      return x[:, -1]
    end = jnp.argmax(tokens if self.eos is None else tokens == self.eos, axis=-1)
    return jnp.take_along_axis(x, end[:, None, None], axis=1)[:, 0]


def check_tower(model: nn.Module, choices: dict[str, tuple[str, ...]], *, name: str) -> None:
  """Checks the fields that text towers have in common; `name` starts the error line.

  Raises:
    UserError: a number below 1, a width that the heads do not divide, a value that is none of `choices`.
  """
  for key in ("vocab_size", "length", "width", "depth", "heads"):
    if getattr(model, key) < 1:
      raise UserError(f"{name}: {key} {getattr(model, key)}, expected 1 or more")
  if model.width % model.heads:
    raise UserError(f"{name}: width {model.width}, expected a multiple of heads={model.heads}")
  for key, valid in choices.items():
    if getattr(model, key) not in valid:
      raise UserError(f"{name}: {key} {nearest(getattr(model, key), valid)}")


def check_ids(tower: nn.Module, *, size: int, end: int, where: str) -> None:
  """Checks that a tower can read ids in [0, size) of texts that end with the id `end`; `where` starts the error line.

  Raises:
    UserError: it knows fewer ids, or takes another one for the end; a run would go on all the same, and be wrong.
  """
  if tower.vocab_size < size:
    raise UserError(f"{where}.vocab_size: found {tower.vocab_size}, expected at least {size}, the ids of the texts")
  if getattr(tower, "pooling", None) != "eos":
    return
  if (size - 1 if tower.eos is None else tower.eos) != end:
    raise UserError(f"{where}.eos: found {tower.eos}, expected {end}, which ends the texts")


def positions(tower: nn.Module, length: int, *, std: float) -> Array:
  """Returns the first `length` rows of the tower's learnt positions "pos_embed", f32[length,D].

  Raises:
    UserError: a text longer than the tower's `length`.
  """
  if length > tower.length:
    raise UserError(f"{type(tower).__name__}: texts of {length} tokens, expected at most length={tower.length}")
  return tower.param("pos_embed", nn.initializers.normal(std), (tower.length, tower.width))[:length]


def tower_blocks(tower: nn.Module, **options: Any) -> Blocks:
  """Returns the tower's "blocks", of its fields and `options`; inside of its compact method."""
  shared = ("activation", "drop_path", "norm_epsilon", "dtype", "remat", "unroll")
  options |= {key: getattr(tower, key) for key in shared}
  return Blocks(tower.depth, tower.heads, round(tower.mlp_ratio * tower.width), **options, name="blocks")
