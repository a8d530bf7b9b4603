"""A small convolutional autoencoder: each stage halves the picture, the decoder doubles it back."""

from typing import ClassVar

import jax.numpy as jnp
from flax import linen as nn

from ssljax import precision, sharding
from ssljax.errors import UserError
from ssljax.models.conv import Conv
from ssljax.models.layers import BatchNorm
from ssljax.types import Array


class ConvBlock(nn.Module):
  """A 3x3 convolution, batch normalisation, ReLU."""

  features: int
  dtype: precision.Dtype = "float32"

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    """Returns f32[B,H,W,features] for x[B,H,W,I]."""
    x = Conv(self.features, 3, dtype=self.dtype, name="conv")(x)
    return sharding.constrain(nn.relu(BatchNorm(use_running_average=not train, name="bn")(x)))


class ConvEncoder(nn.Module):
  """Blocks of growing width, each followed by a max-pool of 2; its running statistics are "batch_stats".

  Attributes:
    widths: channels of each stage.
    dtype: the type the operands of convolutions are rounded to.

  Source: the denoising autoencoder of Chakraborty, Gosthipaty, Paul, "G-SimCLR", 2020, arXiv 2009.12007.
  Differs from the reference: convolutions have no bias (a normalisation follows), He initialisation.
  """

  widths: tuple[int, ...] = (32, 64, 128)
  dtype: precision.Dtype = "float32"
  couples_examples: ClassVar[bool] = True

  def __post_init__(self):
    super().__post_init__()
    if not self.widths or min(self.widths) < 1:
      raise UserError(f"conv_autoencoder.ConvEncoder: widths {self.widths}, expected at least one, each 1 or more")

  @property
  def features(self) -> int:
    """Length of the embedding."""
    return self.widths[-1]

  @property
  def stride(self) -> int:
    """Pixels a side of what one place of the last stage stands for."""
    return 2 ** len(self.widths)

  @nn.compact
  def __call__(
    self, images: Array, *, keep: Array | None = None, keys: Array | None = None, train: bool = False
  ) -> dict[str, Array]:
    """Returns "embedding" f32[B,D] (the mean over places) and "tokens" f32[B,h*w,D].

    Args:
      images: f32[B,H,W,C], sides a multiple of `stride`.
      keep: None, a convolution sees all pixels.
      keys: unused, there is no stochastic depth.
      train: normalise by the batch's statistics and move the running ones.

    Raises:
      UserError: `keep` is given, or the sides do not fit.
    """
    del keys
    if keep is not None:
      raise UserError("conv_autoencoder.ConvEncoder: cannot encode visible patches alone, expected vit.ViT")
    height, width = images.shape[1:3]
    if height % self.stride or width % self.stride:
      raise UserError(
        f"conv_autoencoder.ConvEncoder: pictures of {height} x {width} pixels, expected a multiple of {self.stride}"
      )
    x = images
    for number, features in enumerate(self.widths):
      x = nn.max_pool(ConvBlock(features, self.dtype, name=str(number))(x, train=train), (2, 2), (2, 2))
    tokens = x.reshape(len(x), -1, self.features)
    return {"embedding": jnp.mean(tokens, axis=1), "tokens": tokens}


class ConvDecoder(nn.Module):
  """Repeats every place 2 x 2 and runs a block, once for each width; a last convolution gives the pixels.

  Attributes:
    widths: channels of each stage, those of the encoder backwards.
    channels: of the pictures.

  Source: as for `ConvEncoder`.
  Differs from the reference: the pixels are not squashed by a sigmoid, for pictures may be normalised.
  """

  widths: tuple[int, ...] = (128, 64, 32)
  channels: int = 3
  dtype: precision.Dtype = "float32"

  @nn.compact
  def __call__(self, x: Array, *, train: bool = False) -> Array:
    """Returns pictures f32[B, h 2^n, w 2^n, channels] for x[B,h,w,D] and n widths."""
    for number, features in enumerate(self.widths):
      x = ConvBlock(features, self.dtype, name=str(number))(x.repeat(2, axis=1).repeat(2, axis=2), train=train)
    x = Conv(self.channels, 3, dtype=self.dtype, kernel_init=nn.initializers.lecun_normal(), name="pixels")(x)
    return x + self.param("bias", nn.initializers.zeros, (self.channels,), jnp.float32)
