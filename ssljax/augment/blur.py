"""Gaussian blur as two products with banded matrices."""

import jax.numpy as jnp

from ssljax.augment.crop import product
from ssljax.precision import Dtype
from ssljax.types import Array

SIGMA = (0.1, 2.0)  # pixels; U(.1, 2) in SimCLR and all that followed


def taps(size: int) -> int:
  """Returns the length of the kernel for pictures of `size` pixels: a tenth of the side, odd."""
  return size // 10 // 2 * 2 + 1


def toeplitz(sigma: Array, *, size: int, length: int) -> Array:
  """Returns the matrices f32[B,size,size] that blur with N(0, sigma^2) cut to `length` taps, for sigma f32[B].

  T[i,j] sums the taps that read pixel j for output i; beyond the edge the picture is reflected without repeating
  its border, as torchvision pads: -j and 2 (size - 1) - j are seen as j.
  """
  row, column = jnp.arange(size)[:, None], jnp.arange(size)
  last = size - 1
  offsets = jnp.stack([column - row, -column - row, 2 * last - column - row])
  seen = jnp.stack([column >= 0, column > 0, column < last])[:, None] & (jnp.abs(offsets) <= length // 2)
  weights = jnp.where(seen, jnp.exp(-0.5 * jnp.square(offsets / sigma[:, None, None, None])), 0).sum(1)
  return weights / weights.sum(-1, keepdims=True)


def gaussian_blur(rows: Array, sigma: Array, apply: Array, *, dtype: Dtype = "float32") -> Array:
  """Returns pictures f32[B,H,3,H] blurred where `apply` bool[B] is true; sigma f32[B] in pixels.

  T rows T^T for each plane, with T the identity for the others.

  Source: Chen et al., A Simple Framework for Contrastive Learning, 2020, arXiv 2002.05709, appendix A.
  """
  size = rows.shape[1]
  matrix = jnp.where(apply[:, None, None], toeplitz(sigma, size=size, length=taps(size)), jnp.eye(size))
  down = product("byi,bicj->bycj", matrix, rows, dtype=dtype)
  return product("bycj,bxj->bycx", down, matrix, dtype=dtype)
