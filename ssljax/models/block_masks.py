"""Which patches of a picture are hidden: in blocks, as many as a share of it says."""

from typing import Literal

import jax
import jax.numpy as jnp

from ssljax.types import Array

FAILURES = 10  # blocks in a row that do not fit, after which no other is tried
Draw = Literal["independent", "stratified"]


def block_masks(
  keys: Array, hidden: Array, *, grid: tuple[int, int], smallest: int, aspect: float = 0.3, attempts: int = 32
) -> Array:
  """Returns which patches are hidden, bool[M,N], rows first: blocks on blocks, and never more than `hidden` patches.

  A block's area is drawn evenly from `smallest` to what is left to hide, its height over its width evenly in the
  logarithm from `aspect` to 1 / aspect, its place evenly. It is left out if it is as high or wide as the picture, hides
  nothing new or more than is left; ten such in a row are the end. keys[m] alone decides row m.

  Args:
    keys: key[M], one for each picture.
    hidden: f32[M], most patches that are hidden.
    grid: rows and columns of patches.
    smallest: least area of a block, patches.
    aspect: of the narrowest block.
    attempts: blocks that are drawn.

  Source: Bao, Dong, Piao, Wei, BEiT: BERT Pre-Training of Image Transformers, 2021, arXiv 2106.08254, with the sizes of
    Zhou et al., iBOT, 2021, arXiv 2111.07832.
  Differs from the reference: at most `attempts` blocks are drawn, for a program of fixed length.
  """
  row, column = jnp.arange(grid[0])[:, None], jnp.arange(grid[1])

  def one(key: Array, hidden: Array) -> Array:
    def add(carry: tuple[Array, Array], draw: Array) -> tuple[tuple[Array, Array], None]:
      mask, failures = carry
      left = hidden - jnp.sum(mask)
      area = jnp.maximum(smallest + draw[0] * (left - smallest), 0.0)
      ratio = aspect ** (1 - 2 * draw[1])
      height, width = jnp.round(jnp.sqrt(area * ratio)), jnp.round(jnp.sqrt(area / ratio))
      top, start = jnp.floor(draw[2] * (grid[0] - height + 1)), jnp.floor(draw[3] * (grid[1] - width + 1))
      block = (row >= top) & (row < top + height) & (column >= start) & (column < start + width)
      new = jnp.sum(block & ~mask)
      fits = (height < grid[0]) & (width < grid[1]) & (new > 0) & (new <= left) & (failures < FAILURES)
      return (mask | (block & fits), jnp.where(fits, 0, failures + 1)), None

    draws = jax.random.uniform(key, (attempts, 4))
    start = jnp.zeros(grid, bool), jnp.zeros((), jnp.int32)
    return jax.lax.scan(add, start, draws)[0][0].reshape(-1)

  return jax.vmap(one)(keys, hidden)


def hidden_shares(keys: Array, *, share: tuple[float, float], probability: float, draw: Draw) -> Array:
  """Returns which share of each picture is hidden, f32[M]: 0, or from the smallest to the largest `share`.

  Args:
    keys: key[M], one for each picture.
    share: smallest and largest.
    probability: how many pictures have something hidden.
    draw: "independent": each picture for itself, evenly (iBOT); "stratified": exactly that many of the M pictures, with
      shares spread evenly over the range, one in each of as many equal parts (DINOv2). Which picture gets which part
      goes by the order of numbers drawn from the keys.
  """
  low, high = share
  chosen, within = jnp.moveaxis(jax.vmap(lambda key: jax.random.uniform(key, (2,)))(keys), 1, 0)
  if draw == "independent":
    return jnp.where(chosen < probability, low + (high - low) * within, 0.0)
  count = int(len(keys) * probability)
  rank = jnp.argsort(jnp.argsort(chosen))
  return jnp.where(rank < count, low + (high - low) * (rank + within) / max(count, 1), 0.0)


def hidden_places(mask: Array, *, most: int) -> tuple[Array, Array]:
  """Returns the numbers of the hidden patches of mask bool[...,N], int32[...,most], and which of them there are.

  Where fewer are hidden, patches that are not fill the rest up: bool[...,most] is false there.
  """
  place = jnp.argsort(~mask, axis=-1)[..., :most]
  return place, jnp.take_along_axis(mask, place, axis=-1)
