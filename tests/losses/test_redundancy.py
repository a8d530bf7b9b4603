"""VICReg's and Barlow Twins' losses against loops written from their formulas, exact cases, and over devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax import sharding
from ssljax.losses.redundancy import barlow_twins, barlow_twins_terms, vicreg

PAPER = dict(invariance=25.0, variance=25.0, covariance=1.0)
# More rows than numbers, and fewer: the two ways the squared correlations are summed.
SHAPES = [(12, 5), (5, 12), (6, 6), (2, 3)]


def views(rows, numbers, seed=0):
  x, y = np.random.default_rng(seed).normal(size=(2, rows, numbers)) * np.linspace(0.2, 2, numbers) + 3
  return x, 0.5 * x + 0.5 * y


def covariance(x, y, divisor):
  """The sum over examples, one at a time, of products of what is left without the means."""
  rows, numbers = x.shape
  mean = lambda z: [sum(z[n, d] for n in range(rows)) / rows for d in range(numbers)]
  of_x, of_y, found = mean(x), mean(y), np.zeros((numbers, numbers))
  for d in range(numbers):
    for e in range(numbers):
      found[d, e] = sum((x[n, d] - of_x[d]) * (y[n, e] - of_y[e]) for n in range(rows)) / divisor
  return found


def slow_vicreg(x, y):
  rows, numbers = x.shape
  invariance = sum((x[n, d] - y[n, d]) ** 2 for n in range(rows) for d in range(numbers)) / (rows * numbers)
  hinge, squares = 0.0, 0.0
  for c in (covariance(x, x, rows - 1), covariance(y, y, rows - 1)):
    hinge += sum(max(0.0, 1 - (c[d, d] + 1e-4) ** 0.5) for d in range(numbers)) / numbers
    squares += sum(c[d, e] ** 2 for d in range(numbers) for e in range(numbers) if d != e) / numbers
  return {"invariance": invariance, "variance": hinge / 2, "covariance": squares}


def slow_barlow_twins(x, y, weight):
  c, of_x, of_y = (covariance(*pair, len(x)) for pair in ((x, y), (x, x), (y, y)))
  total = 0.0
  for d in range(len(c)):
    for e in range(len(c)):
      correlation = c[d, e] / ((of_x[d, d] + 1e-5) * (of_y[e, e] + 1e-5)) ** 0.5
      total += (1 - correlation) ** 2 if d == e else weight * correlation**2
  return total


@pytest.mark.parametrize("shape", SHAPES)
def test_vicreg_is_its_formula(shape):
  x, y = views(*shape)
  expected = slow_vicreg(x, y)
  found = vicreg(jnp.asarray(x), jnp.asarray(y), invariance=3.0, variance=5.0, covariance=0.5)
  expected["total"] = 3 * expected["invariance"] + 5 * expected["variance"] + 0.5 * expected["covariance"]
  assert found.keys() == expected.keys()
  for key, value in expected.items():
    assert float(found[key]) == pytest.approx(value, rel=1e-4, abs=1e-6), key


@pytest.mark.parametrize("shape", SHAPES)
def test_barlow_twins_is_its_formula(shape):
  x, y = views(*shape)
  found = barlow_twins(jnp.asarray(x), jnp.asarray(y), off_diagonal_weight=0.3)
  assert float(found) == pytest.approx(slow_barlow_twins(x, y, 0.3), rel=1e-4)


def test_exact_cases():
  """The rows of a Hadamard matrix but the first: numbers of variance 1 that have nothing to do with each other."""
  h = np.array([[1.0]])
  for _ in range(3):
    h = np.block([[h, h], [h, -h]])
  x = jnp.asarray(h[:, 1:])  # 8 examples, 7 numbers, biased variance 1
  terms = vicreg(x, -x, **PAPER)
  assert [float(terms[key]) for key in ("invariance", "variance", "covariance")] == pytest.approx([4, 0, 0], abs=1e-6)
  assert float(barlow_twins(x, x, off_diagonal_weight=1.0)) == pytest.approx(0, abs=1e-6)
  assert float(barlow_twins(x, -x, off_diagonal_weight=1.0)) == pytest.approx(7 * 4, rel=1e-4)
  collapsed = jnp.full((8, 7), 0.3)
  assert float(vicreg(collapsed, collapsed, **PAPER)["total"]) == pytest.approx(25 * 0.99, rel=1e-6)
  one_number = jnp.repeat(x[:, :1], 4, axis=1)  # four times the same: every correlation is 1
  diagonal, others = barlow_twins_terms(one_number, one_number, off_diagonal_weight=0.1)
  assert float(diagonal) == pytest.approx(0, abs=1e-6) and float(others) == pytest.approx(12 * 0.1, rel=1e-4)
  # 12 covariances of 8/7 and as many of the other view, over 4 numbers
  assert float(vicreg(one_number, one_number, **PAPER)["covariance"]) == pytest.approx(2 * 12 * (8 / 7) ** 2 / 4)


@pytest.mark.parametrize("shape", [(12, 5), (5, 12)])
def test_what_does_not_matter(shape):
  """VICReg sees no common shift, Barlow Twins neither shift nor scale of a number; views may be swapped in both."""
  x, y = (jnp.asarray(z, jnp.float32) for z in views(*shape, seed=1))
  total = lambda x, y: float(vicreg(x, y, **PAPER)["total"])
  assert total(x + 2, y + 2) == pytest.approx(total(x, y), rel=1e-4) == pytest.approx(total(y, x), rel=1e-4)
  twins = lambda x, y: float(barlow_twins(x, y, off_diagonal_weight=0.2))
  scale = jnp.linspace(1, 3, x.shape[1])
  assert twins(x * scale + 2, y) == pytest.approx(twins(x, y), rel=1e-3) == pytest.approx(twins(y, x), rel=1e-3)


@pytest.mark.parametrize("shape", [(16, 8), (8, 16)], ids=["numbers by numbers", "rows by rows"])
def test_gradients_are_those_of_finite_differences_and_eight_devices_change_nothing(shape):
  x, y = (jnp.asarray(z, jnp.float32) for z in views(*shape, seed=2))

  def both(x, y):
    return 0.1 * vicreg(x, y, **PAPER)["total"] + barlow_twins(x, y, off_diagonal_weight=0.2)

  run = jax.jit(jax.value_and_grad(both, argnums=(0, 1)))
  value, gradients = run(x, y)
  ways = np.random.default_rng(3).normal(size=(2, *shape))
  slow = lambda x, y: (
    0.1 * sum(PAPER[key] * term for key, term in slow_vicreg(x, y).items()) + slow_barlow_twins(x, y, 0.2)
  )
  x64, y64, step = np.float64(x), np.float64(y), 1e-5
  slope = (slow(x64 + step * ways[0], y64 + step * ways[1]) - slow(x64 - step * ways[0], y64 - step * ways[1])) / 2e-5
  assert sum(float(jnp.sum(g * w)) for g, w in zip(gradients, ways, strict=True)) == pytest.approx(slope, rel=2e-3)

  mesh = sharding.make_mesh()
  placed = jax.device_put((x, y), sharding.batch_sharding(mesh))
  with jax.set_mesh(mesh):
    text = run.lower(*placed).compile().as_text()
    found = run(*placed)
  assert "all-to-all" not in text
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
  jax.tree.map(close, found, (value, gradients))
