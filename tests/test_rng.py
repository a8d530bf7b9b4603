"""An example's key depends on its position in the stream, and on nothing beside it."""

import jax
import numpy as np

from ssljax import rng


def words(positions):
  return np.stack([np.asarray(positions) >> 32, np.asarray(positions) & 0xFFFFFFFF], axis=-1).astype(np.uint32)


def data(positions, use=rng.AUGMENT):
  keys = rng.example_keys(rng.use_key(jax.random.key(0), use), words(positions))
  return np.asarray(jax.random.key_data(keys))


def test_the_batch_around_an_example_does_not_matter():
  np.testing.assert_array_equal(data([5, 6, 7])[1], data([6])[0])
  np.testing.assert_array_equal(data([3, 9])[::-1], data([9, 3]))


def test_positions_beyond_32_bits_and_uses_differ():
  positions = [0, 1, 2**32, 2**32 + 1, 3 * 2**33]
  assert len({tuple(key) for key in data(positions)}) == len(positions)
  assert (data([4], rng.LOSS) != data([4], rng.AUGMENT)).any()
