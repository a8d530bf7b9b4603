"""The losses of DINO and iBOT against the numbers of the released code, and what must not matter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.losses.clustering import sinkhorn
from ssljax.losses.self_distillation import centred_softmax, dino_loss, distillation, ibot_loss, moved_center


def sines(*shape, offset=1.0, function=np.sin):
  return jnp.asarray(function(np.arange(np.prod(shape)) + offset).reshape(shape), jnp.float32)


def by_image(x, views):
  """Rows of one view after the other as [B,V,...]."""
  return jnp.moveaxis(x.reshape(views, -1, *x.shape[1:]), 0, 1)


def test_dino_is_the_released_loss():
  """DINOLoss(out 6, 4 crops, teacher temperature 0.04) of two images, and its centre after."""
  student, teacher = by_image(sines(8, 6), 4), by_image(sines(4, 6, offset=1.5, function=np.cos), 2)
  targets = centred_softmax(teacher, jnp.zeros(6), temperature=0.04)
  assert float(dino_loss(student, targets, temperature=0.1)) == pytest.approx(17.2783730396, rel=1e-5)
  center = moved_center(jnp.zeros(6), teacher, decay=0.9)
  expected = [0.0452027, -0.04594108, -0.09484685, -0.05655086, 0.03373773, 0.09300801]
  np.testing.assert_allclose(center, expected, rtol=1e-5, atol=1e-7)


def test_ibot_is_the_released_loss():
  """iBOTLoss(out 6 and 5) of two images, two global crops of four patches and two local crops."""
  cls, local = sines(4, 6), sines(4, 6, offset=7.0)
  patches = jnp.sin(jnp.arange(80.0) + 3).reshape(4, 4, 5)
  teacher, teacher_patches = sines(4, 6, offset=1.5, function=np.cos), jnp.cos(jnp.arange(80.0) + 0.5).reshape(4, 4, 5)
  mask = np.array([[[1, 0, 1, 0], [0, 0, 0, 0]], [[1, 1, 1, 0], [0, 0, 0, 1]]], bool).swapaxes(0, 1)
  students = jnp.concatenate([by_image(cls, 2), by_image(local, 2)], axis=1)
  targets = centred_softmax(by_image(teacher, 2), jnp.zeros(6), temperature=0.04)
  assert float(dino_loss(students, targets, temperature=0.1)) == pytest.approx(15.9525302561, rel=1e-5)
  targets = centred_softmax(by_image(teacher_patches, 2), jnp.zeros(5), temperature=0.04)
  found = ibot_loss(by_image(patches, 2), targets, jnp.asarray(mask), temperature=0.1)
  assert float(found) == pytest.approx(1.4824227919, rel=1e-5)


def test_what_is_not_hidden_does_not_count_and_nothing_hidden_is_nothing():
  logits, targets = sines(2, 4, 5), jax.nn.softmax(sines(2, 4, 5, offset=9.0))
  mask = jnp.array([[True, False, False, False], [False] * 4])
  expected = distillation(logits, targets, temperature=0.1)[0, 0] / 2
  assert float(ibot_loss(logits, targets, mask, temperature=0.1)) == pytest.approx(float(expected), rel=1e-6)


def test_a_teacher_of_one_view_teaches_the_others():
  student, targets = sines(3, 4, 6), jax.nn.softmax(sines(3, 1, 6, offset=2.0))
  expected = jnp.mean(distillation(student[:, 1:], targets, temperature=0.2))
  assert float(dino_loss(student, targets, temperature=0.2)) == pytest.approx(float(expected), rel=1e-6)


def test_no_gradient_goes_to_the_teacher():
  loss = lambda s, t: dino_loss(s, centred_softmax(t, jnp.zeros(6), temperature=0.04), temperature=0.1)
  student, teacher = jax.grad(loss, argnums=(0, 1))(sines(2, 4, 6), sines(2, 2, 6))
  assert float(jnp.abs(teacher).max()) == 0 and float(jnp.abs(student).max()) > 1e-2
  assert float(jnp.abs(jax.grad(lambda x: sinkhorn(x, epsilon=0.1, iterations=3)[0, 0])(sines(3, 4))).max()) == 0


def unit(x):
  return x / jnp.linalg.norm(x, axis=1, keepdims=True)


def test_sinkhorn_is_swavs_and_dinov2s():
  scores = unit(sines(4, 3)) @ unit(sines(3, 3, offset=9.0)).T
  expected = [
    [1.74924694e-5, 0.291320548, 0.708661959], [0.723017595, 0.00428874827, 0.272693657],
    [1.8e-9, 0.999944304, 5.5694e-5], [0.619847157, 1.8808e-7, 0.380152655],
  ]  # fmt: skip
  np.testing.assert_allclose(sinkhorn(scores, epsilon=0.05, iterations=3), expected, rtol=2e-3, atol=1e-7)
  found = sinkhorn(sines(3, 4), epsilon=0.07, iterations=3)
  np.testing.assert_allclose(found[0], [0.166406049, 0.832807558, 7.86392e-4, 1.8e-11], rtol=1e-4, atol=1e-10)


def test_sinkhorn_fills_every_prototype_alike_and_sees_no_shift():
  scores = jnp.asarray(np.random.default_rng(0).normal(size=(64, 8)), jnp.float32)
  found = sinkhorn(scores, epsilon=0.5, iterations=50)
  np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
  np.testing.assert_allclose(found.sum(axis=0), 8, rtol=1e-3)
  np.testing.assert_allclose(sinkhorn(scores + 200, epsilon=0.5, iterations=50), found, rtol=1e-3)
