"""The smoothed cross entropy against loops, exact values and finite differences."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.losses.classification import smoothed_cross_entropy


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_oracle(smoothing):
  generator = np.random.default_rng(0)
  logits, labels = 4 * generator.normal(size=(2, 3, 5)), generator.integers(0, 5, (2, 3))
  found = smoothed_cross_entropy(jnp.asarray(logits, jnp.float32), jnp.asarray(labels), smoothing=smoothing)
  for place in np.ndindex(2, 3):
    z = sum(math.exp(v) for v in logits[place])
    target = [(1 - smoothing) * (k == labels[place]) + smoothing / 5 for k in range(5)]
    expected = sum(-q * math.log(math.exp(v) / z) for q, v in zip(target, logits[place], strict=True))
    assert float(found[place]) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_exact_cases():
  even = jnp.zeros((1, 4))
  for smoothing in (0.0, 0.3):
    assert float(smoothed_cross_entropy(even, jnp.array([2]), smoothing=smoothing)[0]) == pytest.approx(math.log(4))
  sure = jnp.array([[math.log(13), 0.0, 0.0, 0.0]])  # probabilities 13/16 and three times 1/16
  assert float(smoothed_cross_entropy(sure, jnp.array([0]), smoothing=0.0)[0]) == pytest.approx(math.log(16 / 13))
  # Of 0.4 each class has 0.1: the smallest loss is where the probabilities are the targets, 0.7 and 0.1.
  best = jnp.log(jnp.array([[0.7, 0.1, 0.1, 0.1]]))
  gradient = jax.grad(lambda x: smoothed_cross_entropy(x, jnp.array([0]), smoothing=0.4)[0])(best)
  np.testing.assert_allclose(gradient, 0, atol=1e-6)


def test_large_logits_stay_finite():
  loss = lambda x: smoothed_cross_entropy(x, jnp.array([1]), smoothing=0.1)[0]
  value, gradient = jax.value_and_grad(loss)(jnp.array([[1e4, -1e4, 0.0]]))
  assert float(value) == pytest.approx(0.9 * 2e4 + 0.1 * (0 + 2e4 + 1e4) / 3, rel=1e-5)
  np.testing.assert_allclose(gradient[0], [1 - 0.1 / 3, -0.9 - 0.1 / 3, -0.1 / 3], rtol=1e-5)
