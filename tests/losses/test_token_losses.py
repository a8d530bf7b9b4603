"""Token losses against T5's published value, a slow oracle, and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.losses.tokens import cross_entropy


def test_golden():
  nats, size = cross_entropy(jnp.array([1.0, 2.0, 3.0]), jnp.array(2), z_loss=1e-4)
  assert float(nats) == pytest.approx(0.4076059644, rel=1e-6)
  assert float(size) == pytest.approx(0.0011611778, rel=1e-5)
  assert float(nats + size) == pytest.approx(0.4087671423, rel=1e-6)


def test_oracle():
  generator = np.random.default_rng(0)
  logits, targets = generator.normal(size=(2, 3, 7)) * 4, generator.integers(0, 7, (2, 3))
  nats, size = cross_entropy(jnp.asarray(logits, jnp.float32), jnp.asarray(targets), z_loss=0.01)
  for place in np.ndindex(2, 3):
    z = sum(np.exp(v) for v in logits[place])
    assert float(nats[place]) == pytest.approx(-np.log(np.exp(logits[place][targets[place]]) / z), rel=1e-5, abs=1e-5)
    assert float(size[place]) == pytest.approx(0.01 * np.log(z) ** 2, rel=1e-5, abs=1e-6)


def test_large_logits_stay_finite():
  logits = jnp.array([1e4, -1e4, 0.0])
  value, gradient = jax.value_and_grad(lambda x: sum(cross_entropy(x, jnp.array(1), z_loss=1e-4)))(logits)
  assert float(value) == pytest.approx(2e4 + 1e-4 * 1e8, rel=1e-5) and bool(jnp.isfinite(gradient).all())
