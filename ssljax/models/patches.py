"""Images as sequences of flattened patches, and back."""

import jax
import jax.numpy as jnp

from ssljax.errors import UserError
from ssljax.types import Array


def grid_shape(height: int, width: int, *, patch: int) -> tuple[int, int]:
  """Returns how many rows and columns of patches an image of `height` x `width` pixels has.

  Raises:
    UserError: a side is no multiple of the patch side.
  """
  for side in (height, width):
    if side % patch:
      raise UserError(f"image_size: {side} pixels, expected a multiple of patch={patch} pixels")
  return height // patch, width // patch


def patchify(images: Array, *, patch: int) -> Array:
  """Returns the patches of images[B,H,W,C], rows first: f32[B, (H/p)(W/p), p*p*C].

  A patch is flattened row, column, channel (nchpwq -> nhwpqc in the reference's NCHW letters).

  Raises:
    UserError: a side is no multiple of `patch` (pixels).

  Source: He et al., Masked Autoencoders Are Scalable Vision Learners, 2021, arXiv 2111.06377.
  """
  batch, height, width, channels = images.shape
  rows, columns = grid_shape(height, width, patch=patch)
  cells = images.reshape(batch, rows, patch, columns, patch, channels)
  return cells.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * columns, patch * patch * channels)


def unpatchify(patches: Array, *, patch: int, grid: tuple[int, int] | None = None) -> Array:
  """Returns the images f32[B,H,W,C] whose `patchify` is patches[B,N,p*p*C].

  Args:
    patch: side of a patch, pixels.
    grid: rows and columns of patches; a square by default.
  """
  batch, count, size = patches.shape
  rows, columns = grid or (int(count**0.5), int(count**0.5))
  cells = patches.reshape(batch, rows, columns, patch, patch, size // patch**2)
  return jnp.swapaxes(cells, 2, 3).reshape(batch, rows * patch, columns * patch, -1)


def random_patches(keys: Array, *, count: int, kept: int) -> Array:
  """Returns `kept` different numbers below `count` for each key, int32[B,kept]; keys[b] alone decides row b."""
  noise = jax.vmap(lambda key: jax.random.uniform(key, (count,)))(keys)
  return jnp.argsort(noise, axis=-1)[:, :kept]


def random_mask(keys: Array, *, count: int, share: tuple[float, float]) -> Array:
  """Returns which of `count` patches are hidden, bool[B,count], at least one; keys[b] alone decides row b.

  How many is drawn first, evenly between the smallest and largest `share`; then which, one by one.
  """
  low, high = share

  def one(key: Array) -> Array:
    how_many, which = jax.random.split(key)
    drawn = jax.random.uniform(how_many, (), minval=low, maxval=high)
    order = jnp.argsort(jax.random.uniform(which, (count,)))
    return jnp.argsort(order) < jnp.maximum(jnp.round(drawn * count), 1)

  return jax.vmap(one)(keys)
