"""Projectors and predictors: the small networks between an embedding and a loss."""

from typing import Literal

from flax import linen as nn

from ssljax import precision
from ssljax.errors import UserError
from ssljax.models.layers import BatchNorm, Dense, gelu
from ssljax.types import Array

ACTIVATIONS = {"relu": nn.relu, "gelu": gelu}
LAST_NORMS = {"plain": (False, False), "scale": (True, False), "affine": (True, True)}


class MLPHead(nn.Module):
  """`layers` Dense layers; between two of them normalisation and activation, after the last at most normalisation.

  Attributes:
    hidden: width of the hidden layers; None for the width of the input.
    out: length of the output.
    layers: number of Dense layers.
    norm: batch normalisation of the hidden layers, or none. The Dense layers below it have no bias.
    last_norm: batch normalisation of the output: "none", "plain" (nothing learnt), "scale" (scale but no bias)
      or "affine" (both).
    last_bias: whether the last Dense layer has a bias.
    activation: after each hidden layer.
    init_std: standard deviation of the kernels; None for 1 / sqrt(fan in), cut at two deviations.
    dtype: the type the operands of products are rounded to.

  The heads of the papers (hidden, out, layers, last_norm, last_bias):
    SimCLR projector      None, 128, 2 (v1) or 3 (v2), "scale", "absent"
    BYOL both             4096, 256, 2, "none", "absent"
    SimSiam projector     2048, 2048, 3, "plain", "absent"; predictor 512, 2048, 2, "none", "present"
    MoCo v3 projector     4096, 256, 2 (ResNet) or 3 (ViT), "plain", "absent"; predictor with 2 layers
    VICReg, Barlow Twins  8192, 8192, 3, "none", "absent"

  Source: Chen et al., Big Self-Supervised Models are Strong Semi-Supervised Learners, 2020, arXiv 2006.10029;
  Grill et al., Bootstrap Your Own Latent, 2020, arXiv 2006.07733.
  """

  hidden: int | None = None
  out: int = 128
  layers: int = 2
  norm: Literal["batch", "none"] = "batch"
  last_norm: Literal["none", "plain", "scale", "affine"] = "none"
  last_bias: Literal["present", "absent"] = "absent"
  activation: Literal["relu", "gelu"] = "relu"
  init_std: float | None = None
  dtype: precision.Dtype = "float32"

  @nn.compact
  def __call__(self, x: Array, *, train: bool = False, stop: int | None = None) -> Array:
    """Returns f32[B,out] for x[B,D].

    Args:
      x: embeddings.
      train: normalise by the batch and move the collection "batch_stats".
      stop: return what hidden layer `stop` gives instead, f32[B,hidden]; 1 is the first, None the output.
    """
    init = nn.initializers.lecun_normal() if self.init_std is None else nn.initializers.normal(self.init_std)
    hidden = self.hidden or x.shape[-1]
    bias = "absent" if self.norm == "batch" else "present"
    for layer in range(self.layers - 1):
      x = Dense(hidden, bias=bias, kernel_init=init, dtype=self.dtype, name=f"fc{layer + 1}")(x)
      if self.norm == "batch":
        x = BatchNorm(use_running_average=not train, name=f"bn{layer + 1}")(x)
      x = ACTIVATIONS[self.activation](x)
      if layer + 1 == stop:
        return x
    x = Dense(self.out, bias=self.last_bias, kernel_init=init, dtype=self.dtype, name=f"fc{self.layers}")(x)
    if self.last_norm == "none":
      return x
    scale, shift = LAST_NORMS[self.last_norm]
    last = BatchNorm(use_running_average=not train, use_scale=scale, use_bias=shift, name=f"bn{self.layers}")
    return last(x)


def first_layers(head: MLPHead, *, layers: int, width: int) -> MLPHead:
  """Returns the first layers of a head for inputs of length `width`, up to the activation behind the last of them.

  Parameters and statistics are called as in the whole head.

  Raises:
    UserError: not fewer layers than the head has, or none.
  """
  if not 0 < layers < head.layers:
    raise UserError(f"projector_layers: found {layers}, expected 1 to {head.layers - 1} of the projector's layers")
  ends = ("affine", "absent") if head.norm == "batch" else ("none", "present")
  return head.clone(layers=layers, out=head.hidden or width, last_norm=ends[0], last_bias=ends[1])
