"""The decoder of the masked autoencoder: visible tokens and mask tokens to pixels of all patches."""

import jax.numpy as jnp
from flax import linen as nn

from ssljax import precision
from ssljax.errors import UserError
from ssljax.models.blocks import Blocks, Remat
from ssljax.models.layers import Dense, LayerNorm
from ssljax.models.positions import sincos_2d
from ssljax.types import Array


class MAEDecoder(nn.Module):
  """Embeds visible tokens, puts mask tokens in the gaps, adds positions, runs blocks and predicts pixels.

  Attributes:
    grid: rows and columns of patches.
    outputs: numbers predicted a patch (patch * patch * channels).

  Source: He et al., Masked Autoencoders Are Scalable Vision Learners, 2021, arXiv 2111.06377.
  """

  grid: tuple[int, int]
  outputs: int
  width: int = 512
  depth: int = 8
  heads: int = 16
  mlp_ratio: float = 4.0
  dtype: precision.Dtype = "float32"
  remat: Remat = "none"

  def __post_init__(self):
    super().__post_init__()
    if self.width % self.heads:
      raise UserError(f"decoder_width: {self.width}, expected a multiple of decoder_heads={self.heads}")

  @nn.compact
  def __call__(self, tokens: Array, restore_idx: Array, *, cls: Array | None = None) -> Array:
    """Returns predictions f32[B,N,outputs] for all N patches, in the image's order.

    Args:
      tokens: f32[B,K,D], the visible patches as the encoder returns them.
      restore_idx: int32[B,N], where patch n is among the visible (below K) or else a mask token.
      cls: f32[B,D], the encoder's cls token, whose position is zero; None where there is none.
    """
    embed = Dense(self.width, dtype=self.dtype, name="embed")
    mask_token = self.param("mask_token", nn.initializers.normal(0.02), (1, 1, self.width))
    # The cls token in the same product: by itself it is so small that XLA would move activations, not the kernel.
    embedded = embed(tokens if cls is None else jnp.concatenate([cls[:, None], tokens], axis=1))
    before, visible = jnp.split(embedded, [embedded.shape[1] - tokens.shape[1]], axis=1)
    rows = jnp.concatenate([visible, jnp.broadcast_to(mask_token, (len(tokens), 1, self.width))], axis=1)
    source = jnp.minimum(restore_idx, tokens.shape[1])  # every masked patch reads the one mask token
    x = jnp.take_along_axis(rows, source[..., None], axis=1) + sincos_2d(self.grid, self.width)
    x = jnp.concatenate([before, x], axis=1)
    hidden = round(self.mlp_ratio * self.width)
    x = Blocks(self.depth, self.heads, hidden, dtype=self.dtype, remat=self.remat, name="blocks")(x)
    x = LayerNorm(name="norm")(x[:, -source.shape[1] :])
    return Dense(self.outputs, dtype=self.dtype, name="pred")(x)
