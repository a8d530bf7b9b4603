"""Random resized crop, flip and resize as one separable resampling: two small matrix products a picture.

The result lies as rows of colour planes, f32[B,h,3,w], and so it stays for colour and blur: every product is then
a plain one of matrices, [h,H] x [H,3W] down the columns and [3h,W] x [W,w] along the rows, and colours are computed
on whole planes.
"""

import math
from typing import Literal

import jax.numpy as jnp

from ssljax.precision import Dtype
from ssljax.types import Array

Filter = Literal["bilinear", "bicubic"]
RATIO = (3 / 4, 4 / 3)  # width / height of a random crop, everywhere in the literature
TRIES = 10
NUMBERS = 2 * TRIES + 2  # how many random numbers a box takes


def random_box(uniform: Array, aspect: Array, *, scale: Array, ratio: tuple[float, float] = RATIO) -> Array:
  """Returns one random box f32[4] = (left, top, right, bottom) in shares of the canvas.

  The area is a share U(scale) of the original picture and width / height is log-uniform in `ratio`, measured in
  the original picture, which was stretched from `aspect` (width / height) to the square canvas. Of ten draws the
  first that fits is taken; if none fits, the largest centred box of an allowed ratio.

  Args:
    uniform: f32[22], independent U(0, 1) numbers: ten areas, ten ratios, the place from left and top.
    aspect: f32[], width / height of the original.
    scale: f32[2], the smallest and the largest share of the area.
    ratio: the smallest and the largest width / height.

  Source: Szegedy et al., Going Deeper with Convolutions, 2014, arXiv 1409.4842; torchvision's RandomResizedCrop.
  Differs from the reference: boxes are real numbers, not whole pixels of the original.
  """
  area = scale[0] + (scale[1] - scale[0]) * uniform[:TRIES]
  low, high = map(math.log, ratio)
  shape = jnp.exp(low + (high - low) * uniform[TRIES:-2])
  sides = jnp.sqrt(jnp.stack([area * shape / aspect, area * aspect / shape]))  # [2, TRIES]: width, height
  fits = jnp.all(sides <= 1, axis=0)
  side = jnp.where(fits.any(), sides[:, jnp.argmax(fits)], _largest(aspect, ratio))
  place = jnp.where(fits.any(), uniform[-2:], 0.5)
  corner = place * (1 - side)
  return jnp.concatenate([corner, corner + side])


def _largest(aspect: Array, ratio: tuple[float, float]) -> Array:
  nearest = jnp.clip(aspect, *ratio)
  return jnp.stack([jnp.minimum(1, nearest / aspect), jnp.minimum(1, aspect / nearest)])


def center_box(aspect: Array) -> Array:
  """Returns the box f32[B,4] of the largest centred square of each original, for `aspect` f32[B]."""
  side = jnp.stack([jnp.minimum(1, 1 / aspect), jnp.minimum(1, aspect)], axis=-1)
  return jnp.concatenate([(1 - side) / 2, (1 + side) / 2], axis=-1)


def flip(boxes: Array) -> Array:
  """Returns boxes [...,4] with left and right exchanged: resampling them mirrors the picture."""
  return boxes[..., jnp.array([2, 1, 0, 3])]


def resample(images: Array, boxes: Array, *, size: int, filter: Filter, dtype: Dtype = "float32") -> Array:
  """Returns V views of each picture as rows of planes, f32[B,V,size,3,size].

  out[v] = Y[v] image X[v]^T with the interpolation matrices of the box's vertical and horizontal edges. The filter
  is widened when shrinking (anti-aliased), as Pillow's `resize(box=...)` does. Bicubic may overshoot the range.

  Args:
    images: [B,H,W,3], uint8 or float; the result has their range.
    boxes: f32[B,V,4], what to cut (left, top, right, bottom in shares of the canvas); right < left mirrors.
    size: side of the result in pixels.
    filter: the interpolation kernel.
    dtype: what the operands are rounded to; sums are float32. Whole pixel values 0 to 255 are exact in bfloat16.

  Differs from the reference: torchvision cuts first, so that pixels beyond the box never enter the filter.
  """
  left, top, right, bottom = jnp.moveaxis(boxes, -1, 0)
  vertical = interpolation(top, bottom, inputs=images.shape[1], outputs=size, filter=filter)
  horizontal = interpolation(left, right, inputs=images.shape[2], outputs=size, filter=filter)
  short = product("bvyi,bijc->bvyjc", vertical, images, dtype=dtype)
  return product("bvycj,bvxj->bvycx", jnp.swapaxes(short, -1, -2), horizontal, dtype=dtype)


def product(equation: str, a: Array, b: Array, *, dtype: Dtype) -> Array:
  """Returns einsum(equation, a, b) with operands rounded to `dtype` and float32 sums."""
  return jnp.einsum(equation, a.astype(dtype), b.astype(dtype), preferred_element_type=jnp.float32)


def interpolation(start: Array, stop: Array, *, inputs: int, outputs: int, filter: Filter) -> Array:
  """Returns the matrices f32[...,outputs,inputs] that sample [start, stop] (shares of the side, f32[...]).

  Row i holds the kernel around c_i = start + (i + 1/2) step, step = (stop - start) / outputs in input pixels,
  stretched by max(1, |step|) and divided by its sum. stop < start mirrors.
  """
  step = ((stop - start) * (inputs / outputs))[..., None]
  centers = start[..., None] * inputs + (jnp.arange(outputs) + 0.5) * step
  width = jnp.maximum(1, jnp.abs(step))[..., None]
  kernel = KERNELS[filter]((jnp.arange(inputs) + 0.5 - centers[..., None]) / width)
  return kernel / kernel.sum(-1, keepdims=True)


def _bilinear(x: Array) -> Array:
  return jnp.maximum(0, 1 - jnp.abs(x))


def _bicubic(x: Array, a: float = -0.5) -> Array:
  x = jnp.abs(x)
  near = ((a + 2) * x - (a + 3)) * x * x + 1
  far = (((x - 5) * x + 8) * x - 4) * a
  return jnp.where(x < 1, near, jnp.where(x < 2, far, 0))


KERNELS = {"bilinear": _bilinear, "bicubic": _bicubic}
