import jax
import numpy as np
import pytest

from ssljax.evaluators import health
from ssljax.evaluators.rankme import feature_std, rankme


def rows(offset, function=np.sin):
  x = function(np.arange(24) + offset).reshape(6, 4)
  return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def slow_uniformity(x):
  total, pairs = 0.0, 0
  for i in range(len(x)):
    for j in range(i):
      total += np.exp(-2 * sum((a - b) ** 2 for a, b in zip(x[i], x[j], strict=True)))
      pairs += 1
  return np.log(total / pairs)


def test_golden():
  np.testing.assert_allclose(health.alignment(rows(1), rows(1.5, np.cos)), 2.9717052542, rtol=1e-5)
  np.testing.assert_allclose(health.uniformity(rows(1)), -2.0304184057, rtol=1e-5)


def test_uniformity_of_rows_of_any_length():
  x = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
  np.testing.assert_allclose(health.uniformity(x), slow_uniformity(x), rtol=1e-5)


def test_one_point_two_poles_and_partners_that_are_the_same():
  point = np.tile(rows(1)[:1], (5, 1))
  np.testing.assert_allclose(health.uniformity(point), 0, atol=1e-5)
  np.testing.assert_allclose(health.uniformity(np.float32([[1, 0], [-1, 0]])), -8, rtol=1e-6)
  assert health.alignment(point, point) == 0
  assert health.alignment(np.float32([[1, 0]]), np.float32([[-1, 0]])) == pytest.approx(4)


def test_all_measures_of_two_views():
  """RankMe is of the features as they are; alignment and uniformity do not see their length."""
  x, y = 3 * rows(1), 0.5 * rows(7)
  found = health.measures(x, y)
  both = np.concatenate([x, y])
  expected = {
    "rankme": rankme(both),
    "feature_std": feature_std(both),
    "alignment": np.mean(np.sum((rows(1) - rows(7)) ** 2, 1)),
    "uniformity": (slow_uniformity(rows(1)) + slow_uniformity(rows(7))) / 2,
  }
  assert found.keys() == expected.keys()
  for key, value in expected.items():
    np.testing.assert_allclose(found[key], value, rtol=1e-5, err_msg=key)
  assert rankme(np.concatenate([rows(1), rows(7)])) != pytest.approx(float(found["rankme"]), rel=1e-3)


def test_gradients_of_uniformity_push_points_apart():
  x = rows(1)[:2]
  gradient = np.asarray(jax.grad(health.uniformity)(x))
  assert np.dot(gradient[0], x[1] - x[0]) > 0 and np.dot(gradient[1], x[0] - x[1]) > 0
