"""Convolution of channels-last images: float32 parameters and results, operands in the compute dtype."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from ssljax import precision
from ssljax.types import Array

LAYOUT = ("NHWC", "HWIO", "NHWC")


def _convolve(x: Array, kernel: Array, stride: int) -> Array:
  pad = kernel.shape[0] // 2
  return jax.lax.conv_general_dilated(x, kernel, (stride, stride), [(pad, pad)] * 2, dimension_numbers=LAYOUT)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve_bfloat16(x: Array, kernel: Array, stride: int) -> Array:
  return _forward(x, kernel, stride)[0]


def _forward(x: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
  operands = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
  return _convolve(*operands, stride).astype(jnp.float32), operands


def _backward(stride: int, operands: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
  transpose = jax.vjp(lambda x, kernel: _convolve(x, kernel, stride), *operands)[1]
  x, kernel = transpose(cotangent.astype(jnp.bfloat16))
  return x.astype(jnp.float32), kernel.astype(jnp.float32)


_convolve_bfloat16.defvjp(_forward, _backward)


def convolve(x: Array, kernel: Array, *, stride: int = 1, dtype: precision.Dtype = "float32") -> Array:
  """Returns x[B,H,W,I] convolved with kernel[k,k,I,O], k // 2 pixels of zeros around: f32[B,H/stride,W/stride,O].

  Args:
    stride: pixels.
    dtype: what operands are rounded to; sums are float32, but bfloat16 rounds the results as well.
  """
  return (_convolve_bfloat16 if dtype == "bfloat16" else _convolve)(x, kernel, stride)


class Conv(nn.Module):
  """A square convolution without bias, by default He initialisation by fan-out (normal)."""

  features: int
  size: int
  stride: int = 1
  dtype: precision.Dtype = "float32"
  kernel_init: nn.initializers.Initializer = nn.initializers.variance_scaling(2.0, "fan_out", "normal")

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Returns f32[B,H/stride,W/stride,features] for x[B,H,W,I]."""
    kernel = self.param("kernel", self.kernel_init, (self.size, self.size, x.shape[-1], self.features), jnp.float32)
    return convolve(x, kernel, stride=self.stride, dtype=self.dtype)
