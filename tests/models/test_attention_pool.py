"""Attention pooling against NumPy, and on a mesh that cuts its heads."""

import jax
import numpy as np
import pytest
from scipy.special import erf

from ssljax import sharding, tree
from ssljax.models.attention_pool import AttentionPool

X = np.random.default_rng(3).normal(size=(4, 5, 8)).astype("float32")
POOL = AttentionPool(heads=2, hidden=16)


@pytest.fixture(scope="module")
def params(random_variables):
  return random_variables(POOL, X)["params"]


def by_hand(p, x):
  p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), p)
  dense = lambda y, q: y @ q["kernel"].reshape(len(q["kernel"]), -1) + q["bias"]
  query, (key, value) = dense(p["latent"][0, 0], p["q"]), np.split(dense(x, p["kv"]), 2, axis=-1)
  heads = []
  for h in (slice(0, 4), slice(4, 8)):
    weights = np.exp(key[..., h] @ query[h] / 2.0)
    heads.append(np.einsum("bn,bnd->bd", weights / weights.sum(-1, keepdims=True), value[..., h]))
  y = dense(np.concatenate(heads, -1), p["proj"])
  z = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-6)
  z = dense(z * p["norm"]["scale"] + p["norm"]["bias"], p["mlp"]["fc1"])
  return y + dense(z * 0.5 * (1 + erf(z / np.sqrt(2))), p["mlp"]["fc2"])


def test_equals_the_pooling_by_hand(params):
  out = jax.jit(POOL.apply)({"params": params}, X)
  np.testing.assert_allclose(out, by_hand(params, X.astype(np.float64)), rtol=1e-4, atol=1e-5)


def test_tensor_cuts_the_heads_and_changes_nothing(params):
  mesh = sharding.make_mesh(data=4, tensor=2)
  placed = sharding.state_sharding(mesh, {"params": {"attn_pool": params}}, fsdp_min_size=2**20)
  specs = {name: tuple(leaf.spec) for name, leaf in tree.named_leaves(placed["params"]["attn_pool"])}
  cut = {"q/kernel": (None, "tensor"), "kv/kernel": (None, None, "tensor"), "proj/kernel": ("tensor", None)}
  assert {name: specs[name] for name in cut} == cut
  with jax.set_mesh(mesh):
    held = jax.device_put(params, placed["params"]["attn_pool"])
    out = jax.jit(POOL.apply)({"params": held}, jax.device_put(X, sharding.batch_sharding(mesh)))
  np.testing.assert_allclose(out, by_hand(params, X.astype(np.float64)), rtol=1e-4, atol=1e-5)
