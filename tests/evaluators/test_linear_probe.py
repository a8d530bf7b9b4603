import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from ssljax.evaluators import linear_probe
from ssljax.evaluators.features import Features
from ssljax.evaluators.linear_probe import Linear, LinearProbe

CLASSES, DIM = 4, 10


def draw(rows, *, seed, noise=1.5):
  rng = np.random.default_rng(seed)
  y = rng.integers(0, CLASSES, rows).astype(np.int32)
  centre = np.random.default_rng(99).normal(size=(CLASSES, DIM))
  return (3 + centre[y] + noise * rng.normal(size=(rows, DIM))).astype(np.float32), y


X, Y = draw(300, seed=0)
FEATURES = Features(X, Y, *draw(200, seed=1), CLASSES)
ZERO = Linear(jnp.zeros((DIM, CLASSES)), jnp.zeros(CLASSES))
ONES = np.ones(len(X), np.float32)


def solve(l2, *, weight=ONES, iterations=300):
  (x,) = linear_probe.standardize(X)
  return linear_probe.logistic(x, Y, weight, ZERO, l2=l2, iterations=iterations, tolerance=1e-5)


@pytest.mark.parametrize("l2", [1e-1, 1e-3])
def test_logistic_equals_scikit_learn(l2):
  classifier, norm = solve(l2)
  peer = LogisticRegression(C=1 / (l2 * len(X)), tol=1e-8, max_iter=2000).fit(linear_probe.standardize(X)[0], Y)
  np.testing.assert_allclose(classifier.kernel, peer.coef_.T, atol=2e-3)
  bias = np.asarray(classifier.bias)
  np.testing.assert_allclose(bias - bias.mean(), peer.intercept_ - peer.intercept_.mean(), atol=2e-3)
  assert norm <= 1e-4


def test_norm_is_the_gradients():
  """The norm reported is that of the gradient at the parameters returned, also when stopped early."""
  classifier, norm = solve(1e-3, iterations=3)
  (x,) = linear_probe.standardize(X)
  grad = jax.grad(linear_probe.objective)(classifier, x, Y, ONES, 1e-3)
  np.testing.assert_allclose(norm, jnp.sqrt(sum(jnp.sum(g**2) for g in grad)), rtol=1e-4)
  assert norm > 1e-4


def test_rows_of_weight_zero_are_left_out():
  weight = np.float32(np.arange(len(X)) < 200)
  (x,) = linear_probe.standardize(X)
  few, _ = linear_probe.logistic(x[:200], Y[:200], ONES[:200], ZERO, l2=1e-2, iterations=300, tolerance=1e-5)
  np.testing.assert_allclose(solve(1e-2, weight=weight)[0].kernel, few.kernel, atol=1e-3)
  masked = linear_probe.ridge(x, Y, weight, l2=1e-2, num_classes=CLASSES)
  cut = linear_probe.ridge(x[:200], Y[:200], ONES[:200], l2=1e-2, num_classes=CLASSES)
  np.testing.assert_allclose(masked.logits(x), cut.logits(x), atol=1e-5)


@pytest.mark.parametrize("l2", [1e-1, 1e-4])
def test_ridge_equals_scikit_learn(l2):
  classifier = linear_probe.ridge(X, Y, ONES, l2=l2, num_classes=CLASSES)
  peer = Ridge(alpha=l2 * len(X)).fit(X, np.eye(CLASSES)[Y])
  np.testing.assert_allclose(classifier.kernel, peer.coef_.T, atol=1e-4)
  np.testing.assert_allclose(classifier.bias, peer.intercept_, atol=1e-3)


def test_standardize_uses_the_training_split_and_silences_constants():
  train = np.float32([[1, 5, 0.1], [3, 5, 0.1]])
  a, b = linear_probe.standardize(train, np.float32([[5, 6, 0.2]]))
  np.testing.assert_array_equal(a, [[-1, 0, 0], [1, 0, 0]])
  np.testing.assert_array_equal(b, [[3, 0, 0]])


@pytest.mark.parametrize("method", ["lbfgs", "ridge"])
def test_accuracy_equals_scikit_learn(method):
  result = LinearProbe(method, l2=(1e-2,))(FEATURES)
  train_x, test_x = linear_probe.standardize(X, FEATURES.test_x)
  if method == "lbfgs":
    expected = LogisticRegression(C=1 / (1e-2 * len(X)), max_iter=2000).fit(train_x, Y).predict(test_x)
    assert result["linear_probe_gradient_norm"] <= 1e-4
  else:
    expected = Ridge(alpha=1e-2 * len(X)).fit(train_x, np.eye(CLASSES)[Y]).predict(test_x).argmax(-1)
  assert result["linear_probe"] == pytest.approx(FEATURES.accuracy(expected), abs=0.011)
  assert result["linear_probe"] > 0.6  # chance is .25


def test_correlated_features_converge():
  """Pixels: neighbours nearly equal. Without the rotation 60 iterations leave a gradient 60 times as long."""
  rng = np.random.default_rng(0)
  smooth = np.exp(-(((np.arange(80)[:, None] - np.arange(80)) / 8) ** 2))
  draw = lambda rows: (rng.normal(size=(rows, 80)) @ smooth).astype(np.float32)
  f = Features(draw(200), Y[:200], draw(50), Y[:50], CLASSES)
  probe = LinearProbe(l2=(1e-2,), iterations=60)
  assert probe(f)["linear_probe_gradient_norm"] < 1e-4


def test_rotation_changes_no_distance():
  rotated, other = linear_probe.rotate(X - X.mean(0), FEATURES.test_x)
  np.testing.assert_allclose(rotated @ other.T, (X - X.mean(0)) @ FEATURES.test_x.T, atol=1e-3)
  covariance = rotated.T @ rotated / len(X)
  np.testing.assert_allclose(covariance, jnp.diag(jnp.diag(covariance)), atol=1e-4)


def test_the_test_split_does_not_choose_the_penalty():
  probe = LinearProbe("ridge", l2=(10.0, 1e-2, 1e-6))
  flipped = dataclasses.replace(FEATURES, test_y=(FEATURES.test_y + 1) % CLASSES)
  assert probe(FEATURES)["linear_probe_l2"] == probe(flipped)["linear_probe_l2"]


def test_noise_dimensions_ask_for_a_strong_penalty():
  """320 rows, 300 dimensions, 5 weak signals: rows that are truly held out must prefer the strong penalty."""
  rng = np.random.default_rng(0)
  y = rng.integers(0, 2, 400).astype(np.int32)
  x = rng.normal(size=(400, 300)).astype(np.float32)
  x[:, :5] += 0.7 * (2 * y[:, None] - 1)
  f = Features(x[:320], y[:320], x[320:], y[320:], 2)
  chosen = LinearProbe("ridge", l2=(10.0, 1e-8))(f)
  assert chosen["linear_probe_l2"] == 10.0
  assert chosen["linear_probe"] > LinearProbe("ridge", l2=(1e-8,))(f)["linear_probe"]


def test_nan_features_end():
  f = dataclasses.replace(FEATURES, train_x=X * np.float32(np.nan))
  assert np.isnan(LinearProbe(l2=(1e-2,))(f)["linear_probe_gradient_norm"])
