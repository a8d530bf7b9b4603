"""Blocks of hidden patches: the published loop on the same draws, shares of pictures, and places."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.models.block_masks import block_masks, hidden_places, hidden_shares

GRID, SMALLEST, ATTEMPTS = (9, 12), 4, 16


def slow_mask(draws, hidden):
  """Block after block until enough is hidden or ten in a row do not fit."""
  mask, failures = np.zeros(GRID, bool), 0
  for area, ratio, top, left in draws:
    rest = hidden - mask.sum()
    if rest <= 0 or failures == 10:
      break
    area = max(SMALLEST + area * (rest - SMALLEST), 0.0)
    ratio = math.exp(math.log(0.3) + ratio * (math.log(1 / 0.3) - math.log(0.3)))
    height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
    failures += 1
    if height < GRID[0] and width < GRID[1]:
      top, left = int(top * (GRID[0] - height + 1)), int(left * (GRID[1] - width + 1))
      new = (~mask[top : top + height, left : left + width]).sum()
      if 0 < new <= rest:
        mask[top : top + height, left : left + width] = True
        failures = 0
  return mask


@pytest.fixture(scope="module")
def masks():
  """How many may be hidden f32[M], the masks bool[M,N] and their keys."""
  keys, hidden = jax.random.split(jax.random.key(0), 60), jnp.linspace(0.0, 60.0, 60)
  options = {"grid": GRID, "smallest": SMALLEST, "attempts": ATTEMPTS}
  make = jax.jit(lambda keys, hidden: block_masks(keys, hidden, **options))
  return keys, hidden, make


def test_the_published_loop_on_the_same_draws(masks):
  keys, hidden, make = masks
  found = np.asarray(make(keys, hidden)).reshape(-1, *GRID)
  draws = np.asarray(jax.vmap(lambda key: jax.random.uniform(key, (ATTEMPTS, 4)))(keys))
  expected = np.stack([slow_mask(*pair) for pair in zip(draws, np.asarray(hidden), strict=True)])
  np.testing.assert_array_equal(found, expected)
  counts = found.sum((1, 2))
  assert counts[0] == 0 and (counts <= hidden).all() and (counts[10:] > 0.5 * hidden[10:]).all()


def test_a_key_alone_decides_its_mask(masks):
  keys, hidden, make = masks
  backwards = make(keys[::-1], hidden[::-1])[::-1]
  np.testing.assert_array_equal(backwards, make(keys, hidden))


def test_independent_shares_are_drawn_picture_by_picture():
  keys = jax.random.split(jax.random.key(1), 2000)
  options = {"share": (0.1, 0.5), "probability": 0.3, "draw": "independent"}
  found = np.asarray(hidden_shares(keys, **options))
  some = found[found > 0]
  assert abs(len(some) / 2000 - 0.3) < 0.05 and abs(some.mean() - 0.3) < 0.02
  assert some.min() >= 0.1 and some.max() <= 0.5
  np.testing.assert_array_equal(hidden_shares(keys[:7], **options), found[:7])


def test_stratified_shares_are_one_in_each_part_of_the_range():
  keys = jax.random.split(jax.random.key(2), 21)
  options = {"share": (0.1, 0.5), "probability": 0.5, "draw": "stratified"}
  found = np.asarray(hidden_shares(keys, **options))
  some = np.sort(found[found > 0])
  edges = np.linspace(0.1, 0.5, 11)
  assert len(some) == 10 and (some >= edges[:-1] - 1e-6).all() and (some <= edges[1:] + 1e-6).all()
  assert np.std(some - edges[:-1]) > 1e-3  # anywhere in its part
  np.testing.assert_array_equal(hidden_shares(keys[::-1], **options), found[::-1])
  assert (np.diff(found[found > 0]) < 0).any()  # not in the order of the batch


def test_places_of_what_is_hidden():
  mask = jnp.asarray([[False, True, False, True, True], [False] * 5])
  place, counted = hidden_places(mask, most=4)
  np.testing.assert_array_equal(counted, [[True, True, True, False], [False] * 4])
  np.testing.assert_array_equal(place[0, :3], [1, 3, 4])
