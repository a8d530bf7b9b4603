import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.evaluators import sgd_probe
from ssljax.evaluators.features import Features
from ssljax.evaluators.linear_probe import Linear
from ssljax.evaluators.sgd_probe import SGDProbe


def draw(rows, seed):
  rng = np.random.default_rng(seed)
  y = rng.integers(0, 3, rows).astype(np.int32)
  return (5 + 2 * np.eye(6)[y] + 0.5 * rng.normal(size=(rows, 6))).astype(np.float32), y


FEATURES = Features(*draw(128, 0), *draw(60, 1), 3)


@pytest.mark.parametrize(
  "probe",
  [
    SGDProbe(learning_rate=20.0, epochs=150),
    sgd_probe.simclr(epochs=60, batch_size=64),
    sgd_probe.moco(epochs=20, batch_size=32),
  ],
)
def test_protocols_learn_separable_classes(probe):
  assert probe(FEATURES)["sgd_probe"] > 0.8


def test_lars_step_is_the_published_one():
  """Two steps written out: g *= trust ||p||/||g|| on the kernel only; mu = m mu + g; p -= lr mu."""
  params = Linear(jnp.float32([[1, 2], [3, 4]]), jnp.float32([1, -1]))
  grads = Linear(jnp.float32([[0.1, -0.2], [0.3, 0.4]]), jnp.float32([0.5, 0.5]))
  probe = SGDProbe("lars", 0.1, 256, epochs=4, warmup_epochs=0, decay="step", weight_decay=0.01)
  optimizer = probe.transformation(100)
  state = optimizer.init(params)
  updates, state = optimizer.update(grads, state, params, step=jnp.int32(0))
  params = jax.tree.map(jnp.add, params, updates)
  np.testing.assert_allclose(params.kernel, [[0.99989772, 2.00016737], [2.99969316, 3.99959088]], rtol=1e-7)
  np.testing.assert_allclose(params.bias, [0.95, -1.05], rtol=1e-6)
  updates, state = optimizer.update(grads, state, params, step=jnp.int32(0))
  np.testing.assert_allclose(updates.bias, [-0.1 * 1.9 * 0.5] * 2, rtol=1e-6)


def test_cosine_schedule_of_mae():
  rate = sgd_probe.mae(batch_size=16384).schedule(7)
  assert rate(0) == 0
  np.testing.assert_allclose([rate(35), rate(70), rate(350)], [3.2, 6.4, 3.2], rtol=1e-6)
  np.testing.assert_allclose(rate(630), 0, atol=1e-6)


def test_step_schedule_of_moco():
  rate = sgd_probe.moco().schedule(10)
  np.testing.assert_allclose([rate(0), rate(599), rate(601), rate(801)], [30, 30, 3, 0.3], rtol=1e-6)


def test_one_step_by_hand():
  """One epoch of one batch from a zero kernel: kernel = lr * mean_i x_i (onehot_i - 1/3)."""
  x, y = FEATURES.train_x, FEATURES.train_y
  probe = SGDProbe("sgd", 0.5, 128, epochs=1, warmup_epochs=0, normalize="none", kernel_std=0.0)
  classifier, _, _ = sgd_probe._train(x, y, probe=probe, num_classes=3)
  expected = 0.25 * x.T @ (np.eye(3)[y] - 1 / 3) / len(x)
  np.testing.assert_allclose(classifier.kernel, expected, atol=1e-5)


def test_running_statistics_are_pytorchs():
  """One batch: running = 0.9 start + 0.1 batch, with the unbiased variance."""
  x = FEATURES.train_x
  _, mean, var = sgd_probe._train(x, FEATURES.train_y, probe=SGDProbe(epochs=1, warmup_epochs=0), num_classes=3)
  np.testing.assert_allclose(mean, 0.1 * x.mean(0), rtol=1e-5)
  np.testing.assert_allclose(var, 0.9 + 0.1 * x.var(0, ddof=1), rtol=1e-5)
