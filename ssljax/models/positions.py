"""Fixed positions of patches on a grid."""

import numpy as np

from ssljax.errors import UserError


def _sincos_1d(places: np.ndarray, dim: int) -> np.ndarray:
  omega = 1.0 / 10000 ** (np.arange(dim // 2) / (dim / 2))
  angles = np.outer(places, omega)
  return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def sincos_2d(grid: tuple[int, int], dim: int) -> np.ndarray:
  """Returns sine-cosine positions f32[rows * columns, dim] of a grid of patches, rows first.

  The first half encodes the column and the second the row ("w goes first"), each as
  [sin(x w_i) for all i, cos(x w_i) for all i] with w_i = 10000^(-i / (dim/4)).

  Raises:
    UserError: `dim` is no multiple of 4.

  Source: He et al., Masked Autoencoders Are Scalable Vision Learners, 2021, arXiv 2111.06377.
  """
  if dim % 4:
    raise UserError(f"width: {dim}, expected a multiple of 4 for sincos positions")
  rows, columns = np.indices(grid).reshape(2, -1)
  return np.concatenate([_sincos_1d(columns, dim // 2), _sincos_1d(rows, dim // 2)], axis=1).astype(np.float32)
