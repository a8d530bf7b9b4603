"""Colour: jitter in a random order, grayscale, solarise. Pictures are rows of planes f32[B,H,3,W] in [0,1]."""

import itertools

import flax
import jax
import jax.numpy as jnp

from ssljax.types import Array

LUMA = (0.299, 0.587, 0.114)  # ITU-R 601-2, Pillow's "L"
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
ORDERS = tuple(itertools.permutations(range(4)))


@flax.struct.dataclass
class Jitter:
  """What a jitter does to each picture.

  Attributes:
    factors: f32[...,4], of brightness, contrast and saturation (1 = no change) and the turn of the hue (shares of
      a full turn, 0 = no change).
    order: i32[...,4], which of the four comes first, second, third, last.
  """

  factors: Array
  order: Array


def random_jitter(uniform: Array, *, strengths: Array, probability: Array) -> Jitter:
  """Returns the random jitter of one picture.

  Factors are U(max(0, 1 - s), 1 + s), the hue's turn U(-s, s), for `strengths` f32[4]; nothing changes with
  probability 1 - `probability`. Each of the 24 orders is as likely.

  Args:
    uniform: f32[6], independent U(0, 1) numbers: four factors, the order, whether to jitter.
    strengths: f32[4], of brightness, contrast, saturation and hue.
    probability: f32[], that anything changes.
  """
  neutral = jnp.array([1.0, 1.0, 1.0, 0.0])
  lowest = jnp.maximum(neutral - strengths, jnp.array([0.0, 0.0, 0.0, -0.5]))
  factors = lowest + (neutral + strengths - lowest) * uniform[:4]
  order = jnp.array(ORDERS)[(uniform[4] * len(ORDERS)).astype(jnp.int32)]
  applied = uniform[5] < probability
  return Jitter(factors=jnp.where(applied, factors, neutral), order=order)


def jitter(rows: Array, draw: Jitter) -> Array:
  """Returns the pictures jittered, each in its own order, clipped to [0,1] after every step.

  Brightness, contrast and saturation are one formula, `blend`, so a step picks its operation by its coefficients
  and no branch runs for nothing. The hue is the one other formula: three blends stand before it and three after,
  and those that an example's order does not want there have factor 1.

  Source: torchvision's ColorJitter (v1, float images); Chen et al., 2020, arXiv 2002.05709, appendix A.
  """
  place = jnp.argmax(draw.order == HUE, axis=-1)[:, None]
  step = jnp.arange(4)
  factor = jnp.take_along_axis(draw.factors, draw.order, axis=-1)
  mean, gray = draw.order == CONTRAST, draw.order == SATURATION

  def blends(rows: Array, wanted: Array, steps: slice) -> Array:
    coefficients = jnp.stack([jnp.where(wanted, factor, 1.0), mean, gray])[..., steps]  # [3,B,3]
    # A loop, not three calls: XLA would fuse them and compute the first blend again for the second and the third.
    return jax.lax.scan(
      lambda x, c: (blend(x, c[0], mean=c[1], gray=c[2]), None), rows, jnp.moveaxis(coefficients, -1, 0)
    )[0]

  rows = blends(rows, step < place, slice(0, 3))
  rows = turn_hue(rows, draw.factors[:, HUE])
  return blends(rows, step > place, slice(1, 4))


def blend(rows: Array, factor: Array, *, mean: Array, gray: Array) -> Array:
  """Returns clip(factor * x + (1 - factor) * other, 0, 1), coefficients f32[B].

  other is black for brightness (mean = gray = 0), the mean gray of the picture for contrast (mean = 1) and the
  picture in gray for saturation (gray = 1).
  """
  luma = to_gray(rows)
  other = _per_picture(gray) * luma + _per_picture(mean) * luma.mean((1, 2, 3), keepdims=True)
  factor = _per_picture(factor)
  return jnp.clip(factor * rows + (1 - factor) * other, 0, 1)


def to_gray(rows: Array) -> Array:
  """Returns .299 R + .587 G + .114 B as f32[B,H,1,W]."""
  return sum(weight * rows[:, :, i : i + 1] for i, weight in enumerate(LUMA))


def turn_hue(rows: Array, turn: Array) -> Array:
  """Returns the pictures with their hue turned by `turn` f32[B] (shares of a full turn), exactly as through HSV.

  Value and chroma stay. With the hue h in sixths of a turn, channel c is max - chroma * clip(min(k, 4 - k), 0, 1),
  k = (n_c + h) mod 6 and n = 5, 3, 1 for red, green, blue: one division a pixel and no branch.
  A rotation in YIQ would be linear and a little cheaper, but gives other colours than the published recipes.
  """
  red, green, blue = rows[:, :, 0], rows[:, :, 1], rows[:, :, 2]
  high = jnp.maximum(jnp.maximum(red, green), blue)
  chroma = high - jnp.minimum(jnp.minimum(red, green), blue)
  numerator = jnp.where(high == red, green - blue, jnp.where(high == green, blue - red, red - green))
  sector = jnp.where(high == red, 0.0, jnp.where(high == green, 2.0, 4.0))
  hue = sector + numerator / jnp.where(chroma == 0, 1, chroma) + 6 * turn[:, None, None]

  def channel(n: int) -> Array:
    k = (n + hue) - 6 * jnp.floor((n + hue) * (1 / 6))
    return high - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)

  return jnp.stack([channel(5), channel(3), channel(1)], axis=2)


def grayscale(rows: Array, apply: Array) -> Array:
  """Returns the pictures in gray (three equal planes) where `apply` bool[B] is true."""
  return jnp.where(_per_picture(apply), to_gray(rows), rows)


def solarize(rows: Array, apply: Array, *, threshold: float = 0.5) -> Array:
  """Returns 1 - x for every value x >= `threshold` of the pictures where `apply` bool[B] is true."""
  return jnp.where(_per_picture(apply) & (rows >= threshold), 1 - rows, rows)


def _per_picture(x: Array) -> Array:
  return x[:, None, None, None]
