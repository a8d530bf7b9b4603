"""The head of DINO and iBOT: an MLP to a unit vector, and its cosines with learnt prototypes."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from ssljax import precision
from ssljax.models.heads import MLPHead
from ssljax.types import Array

EPSILON = 1e-12  # smallest squared length


class DINOHead(nn.Module):
  """Scores of `prototypes` unit vectors: cosines with the output of an MLP of GELUs without norms.

  Parameters: "mlp/fc1/..." and "prototypes" f32[bottleneck,K], whose columns count by their direction alone.

  Attributes:
    prototypes: their number K.
    hidden: width of the MLP's hidden layers.
    bottleneck: length of its output.
    layers: its Dense layers.
    dtype: the type the operands of products are rounded to.

  Source: Caron et al., Emerging Properties in Self-Supervised Vision Transformers, 2021, arXiv 2104.14294.
  """

  prototypes: int = 65536
  hidden: int = 2048
  bottleneck: int = 256
  layers: int = 3
  dtype: precision.Dtype = "float32"

  @property
  def mlp(self) -> MLPHead:
    """What stands before the prototypes."""
    options = {"norm": "none", "last_bias": "present", "activation": "gelu", "init_std": 0.02, "dtype": self.dtype}
    return MLPHead(self.hidden, self.bottleneck, self.layers, **options, name="mlp")

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Returns f32[...,K] for x[...,D]."""
    x = _unit(self.mlp(x), axis=-1)
    prototypes = self.param("prototypes", nn.initializers.normal(0.02), (self.bottleneck, self.prototypes))
    return precision.dot(x, _unit(prototypes, axis=0), dtype=self.dtype)


def _unit(x: Array, *, axis: int) -> Array:
  return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=axis, keepdims=True), EPSILON))
