import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from ssljax import tree
from ssljax.models.text_layers import Embed, GatedMLP, RMSNorm, dropout

X = jax.random.normal(jax.random.key(0), (2, 3, 8))
KEYS = jax.random.split(jax.random.key(7), 4000)


def test_rms_norm_golden():
  x = jnp.array([1.0, 2.0, 3.0, 4.0])
  variables = RMSNorm().init(jax.random.key(0), x)
  assert {name: leaf.shape for name, leaf in tree.named_leaves(variables)} == {"params/scale": (4,)}
  expected = np.array([0.36514835, 0.73029669, 1.09544504, 1.46059339])
  np.testing.assert_allclose(RMSNorm().apply(variables, x), expected, rtol=1e-6)
  np.testing.assert_allclose(RMSNorm().apply({"params": {"scale": 2 * jnp.ones(4)}}, x), 2 * expected, rtol=1e-6)


def test_rms_norm_is_float32_for_any_input():
  x = jnp.full((1, 4), 300.0, jnp.bfloat16)  # its square would lose digits in bfloat16
  out = RMSNorm().apply({"params": {"scale": jnp.ones(4)}}, x)
  assert out.dtype == jnp.float32
  np.testing.assert_allclose(out, 1.0, rtol=1e-6)
  assert not np.any(np.isnan(RMSNorm().apply({"params": {"scale": jnp.ones(4)}}, jnp.zeros((1, 4)))))


def tanh_gelu(x):
  return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


@pytest.mark.parametrize(("activation", "oracle"), [("gelu", tanh_gelu), ("silu", lambda x: x * expit(x))])
def test_gated_mlp_by_hand(activation, oracle, random_variables):
  mlp = GatedMLP(12, activation)
  variables = random_variables(mlp, X)
  kernels = {name: np.asarray(part["kernel"], np.float64) for name, part in variables["params"].items()}
  assert set(kernels) == {"wi_0", "wi_1", "wo"} and all(set(p) == {"kernel"} for p in variables["params"].values())
  x = np.asarray(X, np.float64)
  expected = (oracle(x @ kernels["wi_0"]) * (x @ kernels["wi_1"])) @ kernels["wo"]
  np.testing.assert_allclose(mlp.apply(variables, X), expected, rtol=1e-4, atol=1e-6)


def test_dropout_is_the_same_along_the_length_and_keeps_the_mean():
  x = jnp.ones((4000, 3, 2))
  dropped = np.asarray(dropout(x, KEYS, rate=0.25, site=0))
  assert set(np.unique(dropped)) == {0.0, np.float32(1 / 0.75)}
  np.testing.assert_array_equal(dropped, np.broadcast_to(dropped[:, :1], dropped.shape))
  assert not np.array_equal(dropped[:, 0, 0], dropped[:, 0, 1])
  np.testing.assert_allclose(dropped.mean(), 1.0, atol=0.03)


def test_dropout_follows_the_example_and_the_site():
  x, keys, order = jnp.ones((4, 1, 64)), KEYS[:4], jnp.array([2, 0, 3, 1])
  dropped = dropout(x, keys, rate=0.5, site=0)
  np.testing.assert_array_equal(dropout(x, keys[order], rate=0.5, site=0), dropped[order])
  assert not np.array_equal(dropped, dropout(x, keys, rate=0.5, site=1))
  assert dropout(x, None, rate=0.5, site=0) is x


def test_embedding_starts_standard_normal_and_attends_scaled():
  embed = Embed(500, 16)
  table = embed.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]["embedding"]
  np.testing.assert_allclose([table.mean(), table.std()], [0, 1], atol=0.03)
  variables = {"params": {"embedding": table}}
  np.testing.assert_array_equal(embed.apply(variables, jnp.array([[3, 499]])), table[jnp.array([[3, 499]])])
  assert np.all(np.isnan(embed.apply(variables, jnp.array([500]))))  # not silently another token's
  x = jax.random.normal(jax.random.key(1), (2, 3, 16))
  expected = np.asarray(x, np.float64) @ np.asarray(table, np.float64).T / 4
  np.testing.assert_allclose(embed.apply(variables, x, method="attend"), expected, rtol=1e-4, atol=1e-5)
