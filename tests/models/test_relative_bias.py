import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.models.relative_bias import RelativeBias, relative_position_bucket

# Key minus query, and the buckets the authors' code gives for 32 buckets and distance 128.
RELATIVE = [-200, -128, -127, -91, -64, -46, -32, -23, -16, -15, -12, -11, -9, -8, -7, -1, 0]
RELATIVE += [1, 7, 8, 9, 11, 12, 15, 16, 23, 32, 46, 64, 91, 127, 128, 200]
BOTH = [15, 15, 15, 15, 14, 13, 12, 11, 10, 9, 9, 8, 8, 8, 7, 1, 0]
BOTH += [17, 23, 24, 24, 24, 25, 25, 26, 27, 28, 29, 30, 31, 31, 31, 31]
CAUSAL = [31, 31, 31, 29, 26, 24, 21, 18, 16, 15, 12, 11, 9, 8, 7, 1, 0] + [0] * 16


@pytest.mark.parametrize(("direction", "expected"), [("both", BOTH), ("causal", CAUSAL)])
def test_buckets_are_the_published_ones(direction, expected):
  buckets = relative_position_bucket(jnp.array(RELATIVE), direction=direction)
  assert buckets.dtype == jnp.int32
  np.testing.assert_array_equal(buckets, expected)
  np.testing.assert_array_equal(
    jax.jit(relative_position_bucket, static_argnames="direction")(jnp.array(RELATIVE), direction=direction), expected
  )


@pytest.mark.parametrize("direction", ["both", "causal"])
def test_buckets_grow_with_the_distance_and_fill_their_range(direction):
  buckets = np.asarray(relative_position_bucket(-jnp.arange(300), direction=direction))
  assert np.all(np.diff(buckets) >= 0) and set(buckets) == set(range(16 if direction == "both" else 32))


def test_the_bias_reads_the_table_at_key_minus_query():
  module = RelativeBias(3, "both")
  table = np.random.default_rng(0).normal(size=(3, 32)).astype("float32")
  query, key = jnp.array([5, 0]), jnp.array([0, 5, 200, 6])
  bias = module.apply({"params": {"rel_embedding": table}}, query, key)
  buckets = relative_position_bucket(key[None] - query[:, None], direction="both")
  np.testing.assert_array_equal(bias, table[:, buckets])


def test_initial_bias_follows_glorot():
  table = RelativeBias(64, "causal").init(jax.random.key(0), jnp.arange(2), jnp.arange(2))["params"]["rel_embedding"]
  assert table.shape == (64, 32)
  bound = np.sqrt(6 / (64 + 32))
  assert 0.98 * bound < np.abs(table).max() <= bound
