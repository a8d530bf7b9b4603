"""Layers whose weights depend on the example: a linear map chosen by a few numbers."""

import jax.numpy as jnp
from flax import linen as nn

from ssljax import precision
from ssljax.types import Array


class LinearHypernetwork(nn.Module):
  """x -> W(z) x with W(z) = sum_t z_t W_t: the matrix is linear in the numbers z of an example, without a bias.

  No matrix of an example is ever made: W(z) x is one product of all W_t with the products z_t x_e.

  Attributes:
    dtype: the type the operands of the product are rounded to.

  Source: Ha, Dai, Le, HyperNetworks, 2016, arXiv 1609.09106; its linear form is that of Garrido, Najman, LeCun, 2023,
    arXiv 2302.10283.
  Differs from the reference: weights start at standard deviation 1 / sqrt(numbers of z times numbers of x).
  """

  dtype: precision.Dtype = "float32"

  @nn.compact
  def __call__(self, x: Array, z: Array) -> Array:
    """Returns f32[B,E] for x[B,E] and z[B,T]."""
    pairs = (z[:, :, None] * x[:, None, :]).reshape(len(x), -1)
    shape = (pairs.shape[1], x.shape[1])
    kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32)
    return precision.dot(pairs, kernel, dtype=self.dtype)
