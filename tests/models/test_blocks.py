import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from ssljax import tree
from ssljax.models.blocks import Blocks
from ssljax.models.layers import ACTIVATIONS, drop_path

X = jax.random.normal(jax.random.key(0), (4, 5, 8))
KEYS = jax.random.split(jax.random.key(7), 4)


def blocks(**options):
  return Blocks(**{"depth": 2, "heads": 2, "hidden": 16, **options})


def apply(module, params, x=X, keys=None):
  return jax.jit(module.apply)({"params": params}, x, keys)


def value_and_gradient(module, params, keys=None):
  return jax.jit(jax.value_and_grad(lambda p: jnp.sum(jnp.sin(module.apply({"params": p}, X, keys)))))(params)


@pytest.fixture(scope="module")
def params(random_variables):
  return random_variables(blocks(layer_scale=0.5), X)["params"]


def test_parameters_are_stacked_under_the_names_of_timm(params):
  assert {name: leaf.shape for name, leaf in tree.named_leaves(params)} == {
    "attn/qkv/kernel": (2, 8, 3, 8),
    "attn/qkv/bias": (2, 24),
    "attn/proj/kernel": (2, 8, 8),
    "attn/proj/bias": (2, 8),
    "ls1/gamma": (2, 8),
    "ls2/gamma": (2, 8),
    "mlp/fc1/kernel": (2, 8, 16),
    "mlp/fc1/bias": (2, 16),
    "mlp/fc2/kernel": (2, 16, 8),
    "mlp/fc2/bias": (2, 8),
    "norm1/scale": (2, 8),
    "norm1/bias": (2, 8),
    "norm2/scale": (2, 8),
    "norm2/bias": (2, 8),
  }


def test_layers_start_different():
  kernel = jax.jit(blocks().init)(jax.random.key(1), X)["params"]["attn"]["qkv"]["kernel"]
  assert not np.allclose(kernel[0], kernel[1])


DROPPED = {"layer_scale": 0.5, "drop_path": 0.4}


@pytest.fixture(scope="module")
def unrolled(params):
  return value_and_gradient(blocks(**DROPPED), params, KEYS)


REMATS = ({"unroll": 1}, {"remat": "full"}, {"unroll": 1, "remat": "dots"}, {"remat": "attention_out"})


@pytest.mark.parametrize("options", REMATS, ids=str)
def test_rolled_and_rematerialised_equal_unrolled(params, unrolled, options):
  value, gradient = unrolled
  other_value, other_gradient = value_and_gradient(blocks(**DROPPED, **options), params, KEYS)
  np.testing.assert_allclose(value, other_value, rtol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), gradient, other_gradient)


def test_the_loop_is_unrolled_on_a_cpu_alone_at_apply(params):
  module = blocks(layer_scale=0.5)
  text = lambda module: jax.jit(module.apply).lower({"params": params}, X).as_text()
  assert "while" not in text(module)
  assert "while" in text(blocks(layer_scale=0.5, unroll=1))
  assert "while" in jax.jit(module.init).lower(jax.random.key(0), X).as_text()


def test_remat_saves_less(params):
  saved = lambda remat: jax.vjp(
    lambda p: blocks(layer_scale=0.5, remat=remat, unroll=1).apply({"params": p}, X), params
  )
  remats = ("none", "dots", "attention_out", "full")
  residuals = {remat: tree.size(jax.tree.leaves(saved(remat)[1])) for remat in remats}
  assert residuals["full"] < residuals["attention_out"] < residuals["dots"] < residuals["none"]
  assert residuals["attention_out"] - residuals["full"] == 2 * X.size  # one [B,N,D] a layer


def dense(x, q):
  return x @ q["kernel"].reshape(len(q["kernel"]), -1) + q["bias"]


def norm(x, q):
  return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * q["scale"] + q["bias"]


def attention(x, p, allowed):
  q, k, v = np.split(dense(x, p["attn"]["qkv"]), 3, axis=-1)
  heads = []
  for h in (slice(0, 4), slice(4, 8)):
    weights = np.exp(q[:, h] @ k[:, h].T / 2.0) * (1 if allowed is None else allowed[0])
    heads.append(weights / weights.sum(-1, keepdims=True) @ v[:, h])
  return dense(np.concatenate(heads, -1), p["attn"]["proj"])


@pytest.mark.parametrize("norms", ["pre", "post"])
def test_a_block_by_hand(params, norms):
  """Causal with the norms behind: BERT's order and CLIP's mask in one compilation."""
  p = jax.tree.map(lambda leaf: np.asarray(leaf[0], np.float64), params)
  allowed = np.tril(np.ones((1, 5, 5), bool)) if norms == "post" else None
  module = blocks(depth=1, layer_scale=0.5, norms=norms)
  out = jax.jit(module.apply)({"params": jax.tree.map(lambda leaf: leaf[:1], params)}, X, None, allowed)
  before, after = (norm, lambda x, _: x) if norms == "pre" else (lambda x, _: x, norm)
  for x, y in zip(np.asarray(X, np.float64), out, strict=True):
    x = after(x + attention(before(x, p["norm1"]), p, allowed) * p["ls1"]["gamma"], p["norm1"])
    z = dense(before(x, p["norm2"]), p["mlp"]["fc1"])
    x = x + dense(z * 0.5 * (1 + erf(z / np.sqrt(2))), p["mlp"]["fc2"]) * p["ls2"]["gamma"]
    np.testing.assert_allclose(y, after(x, p["norm2"]), rtol=1e-4, atol=1e-5)


def test_the_approximations_of_gelu():
  x = np.linspace(-4, 4, 33)
  tanh = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
  for name, expected in (("gelu_tanh", tanh), ("quick_gelu", x / (1 + np.exp(-1.702 * x)))):
    np.testing.assert_allclose(ACTIVATIONS[name](jnp.asarray(x)), expected, rtol=1e-5, atol=1e-6)
    assert np.abs(expected - 0.5 * x * (1 + erf(x / np.sqrt(2)))).max() > 1e-4  # not the exact one


def test_drop_path_follows_the_example_not_its_place(params):
  module = blocks(layer_scale=0.5, drop_path=0.9)
  order = jnp.array([2, 0, 3, 1])
  out = apply(module, params, X, KEYS)
  np.testing.assert_allclose(apply(module, params, X[order], KEYS[order]), out[order], rtol=1e-5, atol=1e-6)
  same = apply(module, params, jnp.stack([X[0]] * 4), KEYS)
  assert len({float(row.sum()) for row in same}) > 1


def test_drop_path_drops_whole_examples_and_keeps_the_mean():
  keys = jax.random.split(jax.random.key(3), 4000)
  dropped = drop_path(jnp.ones((4000, 2)), keys, rate=0.25)
  assert set(np.unique(dropped)) == {0.0, np.float32(1 / 0.75)}
  np.testing.assert_allclose(dropped[:, 0], dropped[:, 1])
  np.testing.assert_allclose(dropped.mean(), 1.0, atol=0.03)


def test_drop_path_starts_at_zero_and_grows_to_its_rate(params):
  # The last of two blocks has nearly rate 1, so only the first is left; the first has rate 0, so it is not scaled.
  one, two = blocks(depth=1, layer_scale=0.5), blocks(depth=2, layer_scale=0.5, drop_path=1 - 1e-6)
  first = jax.tree.map(lambda leaf: leaf[:1], params)
  np.testing.assert_allclose(apply(two, params, X, KEYS), apply(one, first), rtol=1e-5, atol=1e-6)


def test_bfloat16_operands_stay_near_float32(params):
  outs = [apply(blocks(layer_scale=0.5, dtype=dtype), params) for dtype in ("float32", "bfloat16")]
  assert outs[1].dtype == jnp.float32
  difference = np.abs(outs[0] - outs[1]).max()
  assert 1e-6 < difference < 0.1
