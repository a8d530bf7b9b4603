"""Residual networks 18 and 50 as torchvision has them (50 is "v1.5": the stride is in the 3x3 convolution)."""

from typing import ClassVar, Literal

import jax.numpy as jnp
from flax import linen as nn

from ssljax import precision, sharding
from ssljax.errors import UserError
from ssljax.models.batch_groups import Groups
from ssljax.models.conv import Conv
from ssljax.models.layers import BatchNorm
from ssljax.types import Array

STAGES = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
EXPANSION = {18: 1, 50: 4}


class Downsample(nn.Module):
  """The shortcut where shapes change: a 1x1 convolution and batch normalisation."""

  features: int
  stride: int
  dtype: precision.Dtype
  groups: Groups = Groups()

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    """Returns f32[B,H/stride,W/stride,features]."""
    x = Conv(self.features, 1, self.stride, self.dtype, name="0")(x)
    return BatchNorm(use_running_average=not train, groups=self.groups, name="1")(x)


class Residual(nn.Module):
  """relu(shortcut + branch): two 3x3 convolutions, or a bottleneck of 1x1, 3x3 and 1x1.

  Attributes:
    width: channels inside the branch.
    expansion: channels of the result over `width`: 1 (two convolutions) or 4 (bottleneck).
    stride: of the 3x3 convolution that has one, pixels.
    last_scale: initial scale of the branch's last normalisation.
  """

  width: int
  expansion: int
  stride: int
  last_scale: Literal["zero", "one"]
  dtype: precision.Dtype
  groups: Groups = Groups()

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    """Returns f32[B,H/stride,W/stride,width * expansion]."""
    plan = [(3, self.stride), (3, 1)] if self.expansion == 1 else [(1, 1), (3, self.stride), (1, 1)]
    features = self.width * self.expansion
    y = x
    for number, (size, stride) in enumerate(plan, start=1):
      last = number == len(plan)
      y = Conv(features if last else self.width, size, stride, self.dtype, name=f"conv{number}")(y)
      init = nn.initializers.zeros if last and self.last_scale == "zero" else nn.initializers.ones
      y = BatchNorm(use_running_average=not train, scale_init=init, groups=self.groups, name=f"bn{number}")(y)
      y = y if last else nn.relu(y)
    if x.shape != y.shape:
      x = Downsample(features, self.stride, self.dtype, self.groups, name="downsample")(x, train=train)
    return sharding.constrain(nn.relu(x + y))


class Stage(nn.Module):
  """`depth` residual blocks at one resolution; the first changes it."""

  depth: int
  width: int
  expansion: int
  stride: int
  last_scale: Literal["zero", "one"]
  dtype: precision.Dtype
  groups: Groups = Groups()

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    """Returns f32[B,H/stride,W/stride,width * expansion]."""
    for block in range(self.depth):
      stride = self.stride if block == 0 else 1
      options = (stride, self.last_scale, self.dtype, self.groups)
      x = Residual(self.width, self.expansion, *options, name=str(block))(x, train=train)
    return x


class ResNet(nn.Module):
  """A residual network; its running statistics are the collection "batch_stats".

  Attributes:
    depth: 18 or 50 layers.
    width_multiplier: multiplies all channels.
    stem: "imagenet" (7x7 stride 2 and a max-pool) or "cifar" (3x3 stride 1).
    last_scale: initial scale of each branch's last normalisation; "zero" makes blocks start as the identity.
    dtype: the type the operands of convolutions are rounded to.
    groups: parts of the batch with statistics of their own; by default one, the global batch (arrays are global under
      jit).

  Source: He et al., Deep Residual Learning for Image Recognition, 2015, arXiv 1512.03385; zero scales of Goyal et
  al., Accurate, Large Minibatch SGD, 2017, arXiv 1706.02677.
  Differs from the reference: running variances average the biased variance, PyTorch's the unbiased.
  """

  depth: Literal[18, 50] = 50
  width_multiplier: int = 1
  stem: Literal["imagenet", "cifar"] = "imagenet"
  last_scale: Literal["zero", "one"] = "zero"
  dtype: precision.Dtype = "float32"
  groups: Groups = Groups()
  couples_examples: ClassVar[bool] = True

  def __post_init__(self):
    super().__post_init__()
    if self.depth not in STAGES:
      raise UserError(f"resnet.ResNet: depth {self.depth}, expected 18 or 50")

  @property
  def features(self) -> int:
    """Length of the embedding."""
    return 64 * 2 ** (len(STAGES[self.depth]) - 1) * self.width_multiplier * EXPANSION[self.depth]

  def _stem(self, x: Array, train: bool) -> Array:
    size, stride = (7, 2) if self.stem == "imagenet" else (3, 1)
    x = Conv(64 * self.width_multiplier, size, stride, self.dtype, name="conv1")(x)
    x = nn.relu(BatchNorm(use_running_average=not train, groups=self.groups, name="bn1")(x))
    return nn.max_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)]) if self.stem == "imagenet" else x

  @nn.compact
  def __call__(
    self, images: Array, *, keep: Array | None = None, keys: Array | None = None, train: bool = False
  ) -> dict[str, Array]:
    """Returns "embedding" f32[B,D] (the mean over places) and "tokens" f32[B,h*w,D].

    Args:
      images: f32[B,H,W,C], normalised.
      keep: None, a convolution sees all pixels.
      keys: unused, there is no stochastic depth.
      train: normalise by the batch's statistics and move the running ones (collection "batch_stats").

    Raises:
      UserError: `keep` is given.
    """
    del keys
    if keep is not None:
      raise UserError("resnet.ResNet: cannot encode visible patches alone, expected an encoder such as vit.ViT")
    x = self._stem(images, train)
    for number, depth in enumerate(STAGES[self.depth]):
      width, stride = 64 * self.width_multiplier * 2**number, 1 if number == 0 else 2
      options = (stride, self.last_scale, self.dtype, self.groups)
      x = Stage(depth, width, EXPANSION[self.depth], *options, name=f"layer{number + 1}")(x, train=train)
    tokens = x.reshape(len(x), -1, self.features)
    return {"embedding": jnp.mean(tokens, axis=1), "tokens": tokens}
