import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.models.attention import Attention, KeyValue, causal, empty_cache, rotary, same_segment

X = jax.random.normal(jax.random.key(0), (2, 4, 8))
ATTENTION = Attention(heads=2, head_width=3, width=8, scale=0.5)
ALLOWED = np.random.default_rng(1).random((2, 4, 4)) < 0.6
ALLOWED[:, :, 0] = True
ALLOWED[1, 2] = False  # a query without any key
BIAS = np.random.default_rng(2).normal(size=(2, 4, 4)).astype("float32")


def run(module, variables, x=X, allowed=ALLOWED, **options):
  def forward(variables, x):
    return module.apply(variables, x, method=lambda m, x: m(x, m.key_value(x), allowed=jnp.asarray(allowed), **options))

  return jax.jit(forward)(variables, x)


@pytest.fixture(scope="module")
def variables():
  rng = np.random.default_rng(0)
  shapes = {"query": (8, 6), "key": (8, 6), "value": (8, 6), "out": (6, 8)}
  return {"params": {name: {"kernel": rng.normal(size=shape).astype("float32")} for name, shape in shapes.items()}}


def oracle(params, x, b):
  q, k, v = (np.asarray(x[b], np.float64) @ params[name]["kernel"] for name in ("query", "key", "value"))
  rows = np.zeros((4, 6))
  for h in range(2):
    cut = slice(3 * h, 3 * h + 3)
    for i in range(4):
      seen = np.flatnonzero(ALLOWED[b, i])
      if len(seen):
        weights = np.exp([0.5 * q[i, cut] @ k[j, cut] + BIAS[h, i, j] for j in seen])
        rows[i, cut] = weights @ v[seen, cut] / weights.sum()
  return rows @ params["out"]["kernel"]


def test_attention_by_hand(variables):
  out = run(ATTENTION, variables, bias=jnp.asarray(BIAS))
  expected = np.stack([oracle(variables["params"], np.asarray(X), b) for b in range(2)])
  np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
  assert not np.any(out[1, 2])


def test_bfloat16_stays_near_and_gradients_are_finite(variables):
  other = Attention(heads=2, head_width=3, width=8, scale=0.5, dtype="bfloat16")
  difference = np.abs(run(ATTENTION, variables) - run(other, variables))
  assert 1e-4 < difference.max() < 0.5
  gradient = jax.grad(lambda v: jnp.sum(run(other, v) ** 2))(variables)
  assert all(np.all(np.isfinite(leaf)) and np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_dropout_changes_the_weights_by_example(variables):
  dropping = Attention(heads=2, head_width=3, width=8, scale=0.5, dropout=0.5)
  keys = jax.random.split(jax.random.key(3), 2)
  out = run(dropping, variables, keys=keys)
  assert not np.allclose(out, run(ATTENTION, variables))
  other = run(dropping, variables, x=X[::-1], allowed=ALLOWED[::-1], keys=keys[::-1])
  np.testing.assert_allclose(other[::-1], out, rtol=1e-5, atol=1e-5)


def test_masks():
  segments = jnp.array([[1, 1, 2, 0]])
  expected = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
  np.testing.assert_array_equal(same_segment(segments, segments)[0], np.array(expected, bool))
  np.testing.assert_array_equal(causal(3)[0], np.tri(3, dtype=bool))


def test_cache_is_written_at_the_index():
  cache = empty_cache(layers=2, batch=1, length=5, heads=2, head_width=3, dtype="bfloat16")
  assert cache.key.shape == (2, 1, 5, 2, 3) and cache.value.dtype == jnp.bfloat16
  layer = jax.tree.map(lambda leaf: leaf[0], cache)
  new = KeyValue(jnp.ones((1, 2, 2, 3)), 2 * jnp.ones((1, 2, 2, 3)))
  written = layer.write(new, jnp.asarray(2))
  np.testing.assert_array_equal(written.key[0, :, 0, 0], [0, 0, 1, 1, 0])
  np.testing.assert_array_equal(written.value[0, :, 1, 2], [0, 0, 2, 2, 0])


def test_rotary_golden_and_relative():
  x = jnp.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 1, 4)  # pairs (1, 3) and (2, 4) at 1 and 1/100 radian a token
  turned = rotary(x, jnp.array([[2]]))[0, 0, 0]
  pair = lambda a, b, angle: (a + 1j * b) * np.exp(1j * angle)
  first, second = pair(1, 3, 2.0), pair(2, 4, 0.02)
  np.testing.assert_allclose(turned, [first.real, second.real, first.imag, second.imag], rtol=1e-5)
  q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 16))
  product = lambda i, j: jnp.sum(rotary(q, jnp.array([[i]])) * rotary(k, jnp.array([[j]])))
  np.testing.assert_allclose(product(7, 3), product(104, 100), rtol=1e-4)
  assert abs(product(7, 3) - product(7, 4)) > 1e-3
  np.testing.assert_array_equal(rotary(q, jnp.array([[0]])), q)
