"""Room between points, and assignments of some rows, each against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.losses.clustering import koleo, sinkhorn


def slow_koleo(x):
  x = np.asarray(x, np.float64)
  x = x / np.linalg.norm(x, axis=1, keepdims=True)
  total = 0.0
  for i in range(len(x)):
    others = [j for j in range(len(x)) if j != i]
    nearest = max(others, key=lambda j: x[i] @ x[j])
    total -= np.log(np.linalg.norm(x[i] - x[nearest] + 1e-8) + 1e-8)
  return total / len(x)


def test_koleo_is_the_distance_to_the_nearest_other_point():
  x = jnp.asarray(np.random.default_rng(0).normal(size=(9, 3)), jnp.float32)
  assert float(koleo(x)) == pytest.approx(slow_koleo(x), rel=1e-5)
  lengths = jnp.arange(1.0, 10.0)[:, None]
  assert float(koleo(lengths * x)) == pytest.approx(float(koleo(x)), rel=1e-5)
  assert float(koleo(jnp.eye(4))) == pytest.approx(-np.log(2**0.5), rel=1e-5)


def test_equal_points_are_pushed_apart_and_nothing_is_infinite():
  x = jnp.asarray([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
  value, gradient = jax.value_and_grad(koleo)(x)
  assert np.isfinite(float(value)) and bool(jnp.isfinite(gradient).all())
  x = jnp.asarray(np.random.default_rng(1).normal(size=(6, 3)), jnp.float32)
  gradient = jax.grad(koleo)(x)
  assert float(koleo(x - 1e-2 * gradient)) < float(koleo(x))


def test_rows_that_do_not_count_are_as_if_they_were_not():
  scores = jnp.asarray(np.random.default_rng(2).normal(size=(10, 4)), jnp.float32).at[7].set(90.0)
  counted = jnp.asarray([True, False, True, True, False, True, True, False, True, True])
  found = sinkhorn(scores, epsilon=0.3, iterations=3, counted=counted)
  expected = sinkhorn(scores[counted], epsilon=0.3, iterations=3)
  np.testing.assert_allclose(found[counted], expected, rtol=1e-5)
  assert float(jnp.abs(found[~counted]).max()) == 0
  nothing = sinkhorn(scores, epsilon=0.3, iterations=3, counted=jnp.zeros(10, bool))
  assert float(jnp.abs(nothing).max()) == 0
