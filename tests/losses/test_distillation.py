"""Distances of features against the published golden, PyTorch and their closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from ssljax.losses.distillation import cosine_distance

DRAW = np.random.default_rng(0).normal


def sines(offset, function):
  return jnp.asarray(function(np.arange(16) + offset).reshape(4, 4), jnp.float32)


def test_golden_of_learning_without_forgetting():
  assert float(cosine_distance(sines(1.0, np.sin), sines(1.5, np.cos)).mean()) == pytest.approx(1.4565440305, rel=1e-6)


def test_value_and_gradient_equal_pytorch():
  a, b, weights = DRAW(size=(2, 5, 7)) * 3, DRAW(size=(2, 5, 7)), DRAW(size=(2, 5))
  x, y, w = (torch.tensor(value, requires_grad=True) for value in (a, b, weights))
  expected = 1 - torch.nn.functional.cosine_similarity(x, y, dim=-1)
  (expected * w).sum().backward()
  total = lambda a, b: (lambda found: (jnp.sum(found * weights), found))(cosine_distance(a, b))
  inputs = (jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32))
  (_, found), gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))(*inputs)
  assert found.shape == (2, 5) and found.dtype == jnp.float32
  np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-5, atol=1e-6)
  for gradient, tensor in zip(gradients, (x, y), strict=True):
    np.testing.assert_allclose(gradient, tensor.grad.numpy(), rtol=1e-4, atol=1e-6)


def test_directions_have_closed_forms_and_lengths_do_not_matter():
  a = jnp.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1e-3, 0.0]])
  b = jnp.array([[5.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [1e3, 1e3]])
  np.testing.assert_allclose(cosine_distance(a, b), [0, 1, 2, 1 - 0.5**0.5], rtol=1e-6, atol=1e-7)


def test_small_angles_keep_their_digits():
  angle = np.array([1e-2, 1e-4, 1e-6])
  a = jnp.broadcast_to(jnp.array([1.0, 0.0]), (3, 2))
  b = jnp.asarray(np.stack([np.cos(angle), np.sin(angle)], axis=1), jnp.float32)
  np.testing.assert_allclose(cosine_distance(a, b), 2 * np.sin(angle / 2) ** 2, rtol=1e-4)  # 1 - cos is 0 from 1e-4 on


def test_equal_and_zero_features_have_finite_gradients():
  for a, b, distance in [(DRAW(size=9), None, 0.0), (np.zeros(9), DRAW(size=9), 0.5), (np.zeros(9), None, 0.0)]:
    a, b = (jnp.asarray(x, jnp.float32) for x in (a, a if b is None else b))
    value, gradient = jax.value_and_grad(cosine_distance)(a, b)
    assert float(value) == pytest.approx(distance, abs=1e-6) and bool(jnp.isfinite(gradient).all())
    assert b is not a or not gradient.any()
