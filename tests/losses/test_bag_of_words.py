"""Bags of visual words in loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.losses.bag_of_words import bag_loss, bag_of_words, squared_distances

DRAW = np.random.default_rng(0).normal
FEATURES, WORDS, LOGITS = DRAW(size=(3, 4, 5)), DRAW(size=(6, 5)), DRAW(size=(3, 2, 6))


def slow_bags(sharpness):
  bags = np.zeros((3, 6))
  for b in range(3):
    for feature in FEATURES[b]:
      codes = np.exp([-sharpness * sum((feature - word) ** 2) for word in WORDS])
      bags[b] = np.maximum(bags[b], codes / codes.sum())
    bags[b] /= bags[b].sum()
  return bags


def test_bags_in_loops():
  distances = squared_distances(jnp.asarray(FEATURES), jnp.asarray(WORDS))
  np.testing.assert_allclose(bag_of_words(distances, sharpness=0.3), slow_bags(0.3), rtol=1e-4)
  hard = np.asarray(bag_of_words(distances, sharpness=1e3))
  for b in range(3):  # as many words as are the nearest of some place, all alike
    nearest = {int(np.argmin(((feature - WORDS) ** 2).sum(1))) for feature in FEATURES[b]}
    np.testing.assert_allclose(hard[b], [1 / len(nearest) if k in nearest else 0 for k in range(6)], atol=1e-5)


def test_the_loss_is_the_mean_divergence_and_nothing_where_the_guess_is_right():
  bags, total = slow_bags(0.3), 0.0
  for b in range(3):
    for v in range(2):
      p = np.exp(LOGITS[b, v]) / np.exp(LOGITS[b, v]).sum()
      total += np.sum(bags[b] * np.log(bags[b] / p))
  assert float(bag_loss(jnp.asarray(LOGITS), jnp.asarray(bags))) == pytest.approx(total / 6, rel=1e-5)
  right = jnp.log(jnp.asarray(bags, jnp.float32))[:, None]
  assert float(bag_loss(right, jnp.asarray(bags, jnp.float32))) == pytest.approx(0, abs=1e-6)


def test_a_word_that_is_not_there_counts_nothing_and_no_gradient_goes_to_the_teacher():
  bags = jnp.asarray([[0.5, 0.5, 0.0]])
  assert float(bag_loss(jnp.zeros((1, 1, 3)), bags)) == pytest.approx(np.log(3) - np.log(2), rel=1e-5)
  loss = lambda x, w: jnp.sum(bag_of_words(squared_distances(x, w), sharpness=1.0) ** 2)
  for gradient in jax.grad(loss, argnums=(0, 1))(jnp.asarray(FEATURES), jnp.asarray(WORDS)):
    assert float(jnp.abs(gradient).max()) == 0
