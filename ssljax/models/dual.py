"""Two towers, one for images and one for texts, that meet in one space."""

import math
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn

from ssljax.errors import UserError
from ssljax.models.heads import MLPHead
from ssljax.models.layers import Dense
from ssljax.models.text_layers import fold_in
from ssljax.types import Array


class Tower(nn.Module):
  """An encoder and, behind its embedding, a projection into the common space: one product, or a small MLP.

  Attributes:
    encoder: gives "embedding" f32[B,D]: a `vit.ViT`, `resnet.ResNet`, `text_tower.TextTower` or `bert.Bert`.
    width: length of the projection; None: the embedding is the projection (SigLIP's images).
    bias: whether the product has a bias (SigLIP's texts have one). Its kernel starts as N(0, 1 / D).
    layers: of the projection. With more than 1 it is a `heads.MLPHead` with biases, as wide inside as the embedding,
      with ReLU and no norms (ConVIRT's has 2).

  Raises:
    UserError: a width or number of layers below 1, layers without a width, at construction.
  """

  encoder: nn.Module
  width: int | None = 512
  bias: Literal["absent", "present"] = "absent"
  layers: int = 1

  def __post_init__(self):
    super().__post_init__()
    if self.layers < 1 or (self.layers > 1 and self.width is None):
      expected = "1 or more" if self.layers < 1 else "1 where there is no projection (width is None)"
      raise UserError(f"dual.Tower: layers {self.layers}, expected {expected}")
    if self.width is not None and self.width < 1:
      raise UserError(f"dual.Tower: width {self.width}, expected 1 or more, or None for no projection")

  @property
  def features(self) -> int:
    """Length of the projection."""
    return self.width or self.encoder.features

  @nn.compact
  def __call__(self, x: Array, *, keys: Array | None = None, train: bool = False) -> dict[str, Array]:
    """Returns what the encoder gives of x and "projection" f32[B,width]; arguments are the encoder's."""
    found = self.encoder(x, keys=keys, train=train)
    if self.width is None:
      return found | {"projection": found["embedding"]}
    if self.layers > 1:
      options = {"norm": "none", "last_bias": "present", "dtype": self.encoder.dtype}
      head = MLPHead(out=self.width, layers=self.layers, **options, name="projection")
      return found | {"projection": head(found["embedding"])}
    init = nn.initializers.normal(self.encoder.features**-0.5)
    product = Dense(self.width, bias=self.bias, kernel_init=init, dtype=self.encoder.dtype, name="projection")
    return found | {"projection": product(found["embedding"])}


class DualEncoder(nn.Module):
  """An image tower, a text tower, and the learnt numbers that make logits of their cosines.

  Parameters: "image/encoder/...", "image/projection/kernel", the same of "text", "logit_scale" f32[], the logarithm
  of what cosines are multiplied by, and "logit_bias" f32[], what is added then.

  Attributes:
    image, text: two `Tower`s with projections of one length.
    initial_scale: what cosines are multiplied by at the start, 1 / temperature (CLIP 1 / 0.07, SigLIP 10); None: it is
      1 and not learnt, the temperature is someone else's (ConVIRT).
    initial_bias: what is added at the start (SigLIP -10); None: there is no bias (CLIP).

  Raises:
    UserError: a tower that is none, projections of different lengths, a scale that is not above 0, at construction.

  Source: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021, arXiv
  2103.00020; Zhai et al., Sigmoid Loss for Language Image Pre-Training, 2023, arXiv 2303.15343.
  """

  image: nn.Module
  text: nn.Module
  initial_scale: float | None = 1 / 0.07
  initial_bias: float | None = None

  def __post_init__(self):
    super().__post_init__()
    for key in ("image", "text"):
      if not isinstance(getattr(self, key), Tower):
        raise UserError(f"dual.DualEncoder: {key} {type(getattr(self, key)).__name__}, expected dual.Tower")
    if self.image.features != self.text.features:
      found = f"images projected to {self.image.features} numbers and texts to {self.text.features}"
      raise UserError(f"dual.DualEncoder: {found}, expected the same length (width)")
    if self.initial_scale is not None and not self.initial_scale > 0:
      raise UserError(f"dual.DualEncoder: initial_scale {self.initial_scale}, expected more than 0")

  @property
  def features(self) -> int:
    """Length of the embedding of images."""
    return self.image.encoder.features

  @nn.compact
  def __call__(
    self, images: Array | None = None, texts: Array | None = None, *, keys: Array | None = None, train: bool = False
  ) -> dict[str, Any]:
    """Returns {"image": what its tower gives, "text": likewise, "scale": f32[], "bias": f32[]}.

    Args:
      images: f32[B,H,W,C], normalised; None for no "image".
      texts: int32[B',L], token ids; None for no "text".
      keys: key[B], the examples' keys for stochastic depth; None for none.
      train: normalise by the batch's statistics where a tower has some.
    """
    inputs = {"image": images, "text": texts}
    given = [(number, key) for number, key in enumerate(inputs) if inputs[key] is not None]
    found = {key: getattr(self, key)(inputs[key], keys=fold_in(keys, number), train=train) for number, key in given}
    number = lambda name, start: self.param(name, nn.initializers.constant(start), ())
    start = self.initial_scale
    scale = jnp.ones(()) if start is None else jnp.exp(number("logit_scale", math.log(start)))
    bias = jnp.zeros(()) if self.initial_bias is None else number("logit_bias", self.initial_bias)
    return found | {"scale": scale, "bias": bias}
