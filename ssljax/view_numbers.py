"""How a view was made of its picture, as numbers: what augmentations tell and equivariant objectives read.

The leaf `transforms` f32[B,V,T] of a batch holds `NAMES` of each view. A box is in shares of the picture. A mirrored
view has its right edge as `left` and a negative `width`, so that a box is always the place of the view's first column
and what lies between it and the last: a point at u (0 to 1 from left to right) of the view is at left + u width of the
picture. Of an operation that was not applied the number is 0. In which order colours were jittered is not told.
"""

import jax.numpy as jnp

from ssljax.types import Array

BOX = ("left", "top", "width", "height")
# Factors less 1, the turn of the hue, whether gray, the blur's sigma in pixels, whether solarised.
COLOR = ("brightness", "contrast", "saturation", "hue", "gray", "blur", "solarize")
NAMES = BOX + COLOR


def relative(first: Array, second: Array) -> Array:
  """Returns the transformations f32[...,T] that lead from views to other views of the same pictures.

  The boxes of the second views in coordinates of the first, (left, top, width, height); of views that are mirror
  images of each other the width is negative. All other numbers are differences. A view leads to itself by
  (0, 0, 1, 1, 0, ...).

  Args:
    first: f32[...,T], numbers of the first views.
    second: f32[...,T], of the second.
  """
  corner, side = first[..., :2], first[..., 2:4]
  box = [(second[..., :2] - corner) / side, second[..., 2:4] / side]
  return jnp.concatenate([*box, second[..., 4:] - first[..., 4:]], axis=-1)
