"""The low spatial frequencies of a picture, as a smaller picture."""

import jax.numpy as jnp
import numpy as np

from ssljax.augment.crop import product
from ssljax.precision import Dtype
from ssljax.types import Array


def low_frequencies(rows: Array, *, size: int, dtype: Dtype = "float32") -> Array:
  """Returns pictures f32[B,size,3,size] with the low frequencies of rows f32[B,S,3,S], and no others.

  y = Re ifft2(corners(fft2(x))) (size / S)^2,   corners: the size x size lowest frequencies, -size/2 to size/2 - 1

  Along an axis that is one product with M[n,m] = 1/S sum_k exp(2 pi i k (n / size - m / S)), so y = Re(M x M^T). M is
  real but for the frequency -size/2, whose opposite is cut off.

  Args:
    rows: pictures as rows of planes.
    size: side of the result, pixels; even, at most S.
    dtype: what the operands are rounded to; sums are float32.

  Source: Wang, Yue, Lu et al., "EfficientTrain: Exploring Generalized Curriculum Learning for Training Visual
    Backbones", 2022, arXiv 2211.09703, section 4.1.
  Differs from the reference: two matrix products instead of Fourier transforms, which TPUs are slow at.
  """
  matrix = _band(size, rows.shape[1])

  def both_axes(along: np.ndarray) -> Array:
    short = product("yi,bicj->bycj", jnp.asarray(along), rows, dtype=dtype)
    return product("bycj,xj->bycx", short, jnp.asarray(along), dtype=dtype)

  return both_axes(matrix.real) - both_axes(matrix.imag)


def _band(outputs: int, inputs: int) -> np.ndarray:
  """Returns M complex64[outputs,inputs] as in `low_frequencies`."""
  frequency = np.arange(-(outputs // 2), outputs // 2)
  shift = np.arange(outputs)[:, None] / outputs - np.arange(inputs) / inputs
  return (np.exp(2j * np.pi * frequency * shift[..., None]).sum(-1) / inputs).astype(np.complex64)
