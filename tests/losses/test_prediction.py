"""Cosines of predictions: the numbers of the papers' code, loops, and what a collapse looks like."""

import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.losses.prediction import mean_cosine, normalized_distance, unit_std


def numbers(rows, columns, offset=1.0, function=np.sin):
  return function(np.arange(rows * columns) + offset).reshape(rows, columns)


P1, Z2, P2, Z1 = numbers(4, 3), numbers(4, 3, 1.5, np.cos), numbers(4, 3, 2.3), numbers(4, 3, 0.2, np.cos)


def test_golden_of_byol():
  f32 = lambda x: jnp.asarray(x, jnp.float32)
  found = float(normalized_distance(f32(P1), f32(Z2)) + normalized_distance(f32(P2), f32(Z1)))
  assert found == pytest.approx(3.3196581103, rel=1e-6)


def test_both_by_loops():
  unit = lambda x: x / np.sqrt(sum(v * v for v in x))
  rows = [(unit(p), unit(z)) for p, z in zip(P1, Z2, strict=True)]
  cosine = sum(sum(a * b for a, b in zip(p, z, strict=True)) for p, z in rows) / 4
  distance = sum(sum((a - b) ** 2 for a, b in zip(p, z, strict=True)) for p, z in rows) / 4
  assert float(mean_cosine(3 * P1, 0.1 * Z2)) == pytest.approx(cosine, rel=1e-5)
  assert float(normalized_distance(3 * P1, 0.1 * Z2)) == pytest.approx(distance, rel=1e-5)
  assert distance == pytest.approx(2 - 2 * cosine)


def test_equal_rows_do_not_spread_and_random_ones_do():
  rows = np.random.default_rng(0).normal(size=(2000, 16)).astype("float32")
  assert float(unit_std(rows)) == pytest.approx(1, abs=0.02)
  assert float(unit_std(np.tile(rows[:1], (5, 1)) * np.arange(1, 6, dtype="float32")[:, None])) < 1e-6
  half = np.concatenate([np.eye(16, dtype="float32")[:1]] * 2 + [-np.eye(16, dtype="float32")[:1]] * 2)
  assert float(unit_std(half)) == pytest.approx(1 / 16 * 4)  # one coordinate of 16 spreads
