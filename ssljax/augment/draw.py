"""The random numbers of every view, drawn from the keys of the examples."""

import flax
import jax
import jax.numpy as jnp

from ssljax.augment import blur, color, crop
from ssljax.augment.recipes import View
from ssljax.types import Array

GLOBAL, LOCAL = 0, 1 << 16  # the number of the first view of a kind; part of a run's identity
CROP, FLIP, JITTER, GRAY, BLUR, SIGMA, SOLARIZE = range(7)  # the operations; likewise


@flax.struct.dataclass
class Draw:
  """The random numbers of a view; every leaf has the axes of the keys it was drawn from in front.

  Attributes:
    box: f32[...,4], what is cut (left, top, right, bottom in shares of the canvas); right < left mirrors.
    jitter: the colour jitter.
    gray: bool[...], whether it turns gray.
    blur: bool[...], whether it is blurred.
    sigma: f32[...], by how many pixels.
    solarize: bool[...], whether it is solarised.
  """

  box: Array
  jitter: color.Jitter
  gray: Array
  blur: Array
  sigma: Array
  solarize: Array


def draw_view(key: Array, aspect: Array, view: View) -> Draw:
  """Returns the random numbers of one view of one picture; each operation has a key of its own."""
  # All of them in one call: XLA compiles every call for a second.
  keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(SOLARIZE + 1))
  uniform = jax.vmap(lambda key: jax.random.uniform(key, (crop.NUMBERS,)))(keys)
  box = crop.random_box(uniform[CROP], aspect, scale=jnp.asarray(view.crop))
  low, high = blur.SIGMA
  return Draw(
    box=jnp.where(uniform[FLIP, 0] < view.flip, crop.flip(box), box),
    jitter=color.random_jitter(
      uniform[JITTER, :6], strengths=jnp.asarray(view.jitter), probability=view.jitter_probability
    ),
    gray=uniform[GRAY, 0] < view.gray,
    blur=uniform[BLUR, 0] < view.blur,
    sigma=low + (high - low) * uniform[SIGMA, 0],
    solarize=uniform[SOLARIZE, 0] < view.solarize,
  )


def numbers(draws: Draw) -> Array:
  """Returns what `view_numbers.NAMES` stand for, f32[...,T]."""
  left, top, right, bottom = jnp.moveaxis(draws.box, -1, 0)
  brightness, contrast, saturation, hue = jnp.moveaxis(draws.jitter.factors, -1, 0)
  blurred = jnp.where(draws.blur, draws.sigma, 0)
  found = (left, top, right - left, bottom - top, brightness - 1, contrast - 1, saturation - 1, hue)
  return jnp.stack([x.astype(jnp.float32) for x in (*found, draws.gray, blurred, draws.solarize)], axis=-1)


def draw_views(keys: Array, aspect: Array, views: tuple[View, ...], *, first: int) -> Draw:
  """Returns the random numbers of V views of each picture, leaves [B,V,...], for keys key[B] and aspect f32[B].

  The key of an operation is folded from (example, first + v, operation): another view more changes none.

  Args:
    keys: one per example.
    aspect: width / height of the originals.
    views: their parameters.
    first: the number of the first view, `GLOBAL` or `LOCAL`.
  """
  stacked = jax.tree.map(lambda *values: jnp.array(values), *views)

  def one(key: Array, aspect: Array, number: Array, view: View) -> Draw:
    return draw_view(jax.random.fold_in(key, first + number), aspect, view)

  each_view = jax.vmap(one, in_axes=(None, None, 0, 0))
  return jax.vmap(each_view, in_axes=(0, 0, None, None))(keys, aspect, jnp.arange(len(views)), stacked)
