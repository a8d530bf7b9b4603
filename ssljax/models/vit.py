"""The vision transformer, an encoder of all patches or of the visible ones only."""

from typing import Literal, NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from ssljax import precision
from ssljax.errors import UserError, nearest
from ssljax.models.attention_pool import AttentionPool
from ssljax.models.blocks import Blocks, Remat
from ssljax.models.layers import ACTIVATIONS, LAYER_NORM_EPSILON, Activation, Dense, LayerNorm
from ssljax.models.patches import grid_shape, patchify, random_patches
from ssljax.models.positions import sincos_2d
from ssljax.models.text_layers import fold_in
from ssljax.types import Array

PATCHES = 2**16  # folded into the keys that choose patches; the blocks fold in their numbers


class Size(NamedTuple):
  """Width of the residual stream, number of blocks, number of heads, hidden width of the MLP over width."""

  width: int
  depth: int
  heads: int
  mlp_ratio: float = 4.0


SIZES = {
  "Ti": Size(192, 12, 3),
  "S": Size(384, 12, 6),
  "B": Size(768, 12, 12),
  "L": Size(1024, 24, 16),
  "H": Size(1280, 32, 16),
  "g": Size(1408, 40, 16, 6144 / 1408),
}


class PatchEmbed(nn.Module):
  """One product for each patch, the same as a convolution with stride `patch`; a module for timm's name alone."""

  features: int
  dtype: precision.Dtype = "float32"
  bias: Literal["present", "absent"] = "present"

  @nn.compact
  def __call__(self, patches: Array) -> Array:
    """Returns f32[B,N,features] for flattened patches[B,N,P]."""
    return Dense(self.features, bias=self.bias, dtype=self.dtype, name="proj")(patches)


class ViT(nn.Module):
  """A pre-norm vision transformer.

  Attributes:
    variant: the size's letter (Ti, S, B, L, H, g); width, depth, heads and mlp_ratio override it one by one.
    patch: side of a patch, pixels.
    image_size: side of the images, pixels; sincos positions take images of other sizes too.
    channels: channels of the images.
    patch_bias: whether the patch embedding has a bias (CLIP's has none).
    pooling: what "embedding" is, after the last norm: the cls token, the mean of the patch tokens, or what a learnt
      query finds in all tokens ("map", SigLIP's `attention_pool.AttentionPool`).
    positions: fixed sine-cosine, which the cls token has none of, or a learnt table with a row for each token.
    cls_token: "learnt", or "none" to do without.
    registers: further learnt tokens behind the cls token, which have no positions and belong to no patch.
    mask_token: "learnt" where patches may be hidden (the argument `mask`), else "absent".
    pre_norm: whether a layer norm stands between the positions and the first block (CLIP).
    activation: of the MLPs: the exact GELU, its tanh approximation (SigLIP) or its sigmoid approximation (CLIP).
    drop_path: probability of dropping a branch in the last block; it grows linearly from 0 in the first.
    patch_dropout: share of an image's patches that are left out at random, where keys are given (FLIP, 0.5 to 0.75).
    layer_scale: initial value of the branches' scales; None for no scales.
    norm_epsilon: added to the variance in all layer norms.
    dtype: the type the operands of matrix products are rounded to.
    remat: what the backward pass computes again, as in `blocks.Blocks`.

  Raises:
    UserError: sizes that do not fit each other, at construction.

  Source: Dosovitskiy et al., An Image is Worth 16x16 Words, 2020, arXiv 2010.11929; initialisation of He et al.,
  Masked Autoencoders Are Scalable Vision Learners, 2021, arXiv 2111.06377; size g of Zhai et al., Scaling Vision
  Transformers, 2021, arXiv 2106.04560; patch dropout of Li et al., Scaling Language-Image Pre-training via Masking,
  2022, arXiv 2212.00794; registers of Darcet et al., Vision Transformers Need Registers, 2023, arXiv 2309.16588.
  """

  variant: Literal["Ti", "S", "B", "L", "H", "g"] = "B"
  width: int | None = None
  depth: int | None = None
  heads: int | None = None
  mlp_ratio: float | None = None
  patch: int = 16
  image_size: int = 224
  channels: int = 3
  patch_bias: Literal["present", "absent"] = "present"
  pooling: Literal["cls", "mean", "map"] = "cls"
  positions: Literal["sincos", "learnt"] = "sincos"
  cls_token: Literal["learnt", "none"] = "learnt"
  registers: int = 0
  mask_token: Literal["absent", "learnt"] = "absent"
  pre_norm: Literal["absent", "present"] = "absent"
  activation: Activation = "gelu"
  drop_path: float = 0.0
  patch_dropout: float = 0.0
  layer_scale: float | None = None
  norm_epsilon: float = LAYER_NORM_EPSILON
  dtype: precision.Dtype = "float32"
  remat: Remat = "none"

  def __post_init__(self):
    super().__post_init__()
    if self.variant not in SIZES:
      raise UserError(f"vit.ViT: variant {nearest(self.variant, SIZES)}")
    if self.size.width % self.size.heads:
      raise UserError(f"vit.ViT: width {self.size.width}, expected a multiple of heads={self.size.heads}")
    if self.positions == "sincos" and self.size.width % 4:
      raise UserError(f"vit.ViT: width {self.size.width}, expected a multiple of 4 for sincos positions")
    if self.pooling == "cls" and self.cls_token == "none":
      raise UserError('vit.ViT: pooling cls, expected mean or map where cls_token is "none"')
    if self.activation not in ACTIVATIONS:
      raise UserError(f"vit.ViT: activation {nearest(self.activation, ACTIVATIONS)}")
    if self.registers < 0:
      raise UserError(f"vit.ViT: registers {self.registers}, expected 0 or more")
    if not 0 <= self.patch_dropout < 1:
      raise UserError(f"vit.ViT: patch_dropout {self.patch_dropout}, expected a share, from 0 to below 1")
    _ = self.grid

  @property
  def size(self) -> Size:
    """The variant's size with the overrides applied."""
    overrides = {key: getattr(self, key) for key in Size._fields if getattr(self, key) is not None}
    return SIZES[self.variant]._replace(**overrides)

  @property
  def features(self) -> int:
    """Length of the embedding."""
    return self.size.width

  @property
  def grid(self) -> tuple[int, int]:
    """Rows and columns of patches in an image of `image_size`."""
    return grid_shape(self.image_size, self.image_size, patch=self.patch)

  @property
  def hidden(self) -> int:
    """Hidden width of the MLPs."""
    return round(self.size.mlp_ratio * self.features)

  def _positions(self, grid: tuple[int, int]) -> tuple[Array | float, Array]:
    """Returns what is added to the cls token (f32[D] or 0) and to the patches f32[N,D]."""
    if self.positions == "sincos":
      return 0.0, jnp.asarray(sincos_2d(grid, self.features))
    if grid != self.grid:
      raise UserError(f"vit.ViT: images of {grid} patches, expected {self.grid} (image_size) with learnt positions")
    first = int(self.cls_token == "learnt")
    shape = (1, first + grid[0] * grid[1], self.features)
    table = self.param("pos_embed", nn.initializers.normal(0.02), shape)[0]
    return table[0] if first else 0.0, table[first:]

  def _kept(self, keys: Array | None, count: int) -> Array | None:
    """Returns which of `count` patches stay, int32[B,K]; None for all."""
    if not self.patch_dropout or keys is None:
      return None
    return random_patches(fold_in(keys, PATCHES), count=count, kept=max(1, int(count * (1 - self.patch_dropout))))

  def _hidden(self, x: Array, mask: Array | None) -> Array:
    """Returns embedded patches x f32[B,N,D] with the mask token where `mask` says."""
    if self.mask_token == "absent":
      if mask is not None:
        raise UserError("vit.ViT: mask_token absent, expected learnt where patches are hidden")
      return x
    token = self.param("mask_token", nn.initializers.zeros, (1, 1, self.features))
    return x if mask is None else jnp.where(mask[..., None], token, x)

  def _with_tokens(self, x: Array, cls_position: Array | float) -> Array:
    """Returns x f32[B,N,D] behind the cls token and the registers, where there are some."""
    table = lambda name, count: self.param(name, nn.initializers.normal(0.02), (1, count, self.features))
    front = [table("cls_token", 1) + cls_position] if self.cls_token == "learnt" else []
    front += [table("reg_token", self.registers)] if self.registers else []
    spread = [jnp.broadcast_to(token, (len(x), *token.shape[1:])) for token in front]
    return jnp.concatenate([*spread, x], axis=1) if front else x

  @nn.compact
  def __call__(
    self,
    images: Array,
    *,
    keep: Array | None = None,
    mask: Array | None = None,
    keys: Array | None = None,
    train: bool = False,
  ) -> dict[str, Array]:
    """Returns "embedding" f32[B,D], "tokens" f32[B,N,D] (patches) and, where there is one, "cls" f32[B,D].

    Where there are some, also "registers" f32[B,R,D].

    Args:
      images: f32[B,H,W,C], normalised.
      keep: int32[B,K], the patches to encode (N = K then); None for all.
      mask: bool[B,N], true where the mask token takes the place of a patch; None for nowhere. Where `keep` or `mask`
        is given, `patch_dropout` takes nothing.
      keys: key[B], the examples' keys for stochastic depth and patch dropout; None for neither.
      train: unused, there are no batch statistics.
    """
    del train
    if images.shape[-1] != self.channels:
      raise UserError(f"vit.ViT: images of {images.shape[-1]} channels, expected channels={self.channels}")
    patches = patchify(images, patch=self.patch)
    if keep is None and mask is None:
      keep = self._kept(keys, patches.shape[1])
    cls_position, positions = self._positions(grid_shape(*images.shape[1:3], patch=self.patch))
    if keep is not None:  # pixels before the product: only what is kept is embedded
      patches = jnp.take_along_axis(patches, keep[..., None], axis=1)
      positions = positions[keep]
    x = PatchEmbed(self.features, self.dtype, self.patch_bias, name="patch_embed")(patches)
    x = self._with_tokens(self._hidden(x, mask) + positions, cls_position)
    if self.pre_norm == "present":
      x = LayerNorm(self.norm_epsilon, name="norm_pre")(x)
    options = {"dtype": self.dtype, "norm_epsilon": self.norm_epsilon, "activation": self.activation}
    depth = {"drop_path": self.drop_path, "layer_scale": self.layer_scale, "remat": self.remat}
    x = Blocks(self.size.depth, self.size.heads, self.hidden, **depth, **options, name="blocks")(x, keys)
    x = LayerNorm(self.norm_epsilon, name="norm")(x)
    first = int(self.cls_token == "learnt")
    registers, tokens = x[:, first : first + self.registers], x[:, first + self.registers :]
    if self.pooling == "map":
      embedding = AttentionPool(self.size.heads, self.hidden, **options, name="attn_pool")(x)
    else:
      embedding = x[:, 0] if self.pooling == "cls" else jnp.mean(tokens, axis=1)
    found = {"embedding": embedding, "tokens": tokens} | ({"cls": x[:, 0]} if first else {})
    return found | ({"registers": registers} if self.registers else {})
