import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax import tree
from ssljax.errors import UserError
from ssljax.models.prefix_lm import SIZES, PrefixLM

TINY = {"vocab_size": 30, "variant": "tiny", "width": 16, "depth": 2, "heads": 2, "head_width": 6, "hidden": 24}
# Row 0 holds two examples with prefixes of 3 and 2 tokens and padding; row 1 one example without prefix.
TOKENS = np.random.default_rng(0).integers(3, 30, (2, 10))
ROWS = {
  "segments": np.array([[1, 1, 1, 1, 1, 2, 2, 2, 2, 0], [1] * 10]),
  "positions": np.array([[0, 1, 2, 3, 4, 0, 1, 2, 3, 0], list(range(10))]),
  "prefix": np.array([[1, 1, 1, 0, 0, 1, 1, 0, 0, 0], [0] * 10], bool),
}
KEYS = jax.random.split(jax.random.key(7), 2)


def call(model, params, tokens=TOKENS, rows=ROWS, keys=None):
  return model.apply({"params": params}, tokens, **rows, keys=keys)


RUN = jax.jit(call, static_argnums=0)


def gradient(model, params, keys=None):
  return jax.jit(jax.value_and_grad(lambda p: jnp.sum(jnp.sin(call(model, p, keys=keys)))))(params)


@pytest.fixture(scope="module")
def params(random_variables):
  return random_variables(PrefixLM(**TINY), TOKENS, **ROWS)["params"]


@pytest.fixture(scope="module")
def logits(params):
  return RUN(PrefixLM(**TINY), params)


def test_names_and_shapes(params):
  attention = {f"blocks/attention/{part}/kernel": (2, 16, 12) for part in ("query", "key", "value")}
  assert {name: leaf.shape for name, leaf in tree.named_leaves(params)} == attention | {
    "blocks/attention/out/kernel": (2, 12, 16),
    "blocks/mlp/wi_0/kernel": (2, 16, 24),
    "blocks/mlp/wi_1/kernel": (2, 16, 24),
    "blocks/mlp/wo/kernel": (2, 24, 16),
    "blocks/pre_attention_layer_norm/scale": (2, 16),
    "blocks/pre_mlp_layer_norm/scale": (2, 16),
    "logits_dense/kernel": (16, 30),
    "norm/scale": (16,),
    "token_embedder/embedding": (30, 16),
  }


@pytest.mark.parametrize("variant", ["tiny", "1b"])
def test_parameter_counts(variant):
  model = PrefixLM(32000, variant)
  width, depth, heads, head_width, hidden = SIZES[variant]
  assert width == heads * head_width == model.features and hidden == -(-8 * width // 3 // 256) * 256
  size = tree.size(jax.eval_shape(lambda: model.init(jax.random.key(0), TOKENS, **ROWS)))
  assert size == depth * (4 * width**2 + 3 * width * hidden + 2 * width) + width + 2 * 32000 * width


@pytest.mark.parametrize(
  ("place", "moved"),
  [
    ((0, 2), [(0, n) for n in range(5)]),  # the last token of a prefix: all of its segment, no other
    ((0, 3), [(0, 3), (0, 4)]),  # after the prefix: what follows
    ((0, 5), [(0, n) for n in range(5, 9)]),
    ((0, 8), [(0, 8)]),
    ((0, 9), []),  # padding
    ((1, 4), [(1, n) for n in range(4, 10)]),
  ],
)
def test_a_token_moves_what_may_look_at_it(params, logits, place, moved):
  tokens = TOKENS.copy()
  tokens[place] = 3 + (tokens[place] - 2) % 27
  changed = np.abs(RUN(PrefixLM(**TINY), params, tokens) - logits).max(-1) > 0
  changed[ROWS["segments"] == 0] = False
  assert {tuple(map(int, p)) for p in np.argwhere(changed)} == set(moved)


@pytest.mark.parametrize("segment", [1, 2])
def test_packed_examples_equal_the_same_examples_alone(params, logits, segment):
  places = ROWS["segments"][0] == segment
  rows = {key: value[:1, places] for key, value in ROWS.items()}
  rows["segments"] = np.ones_like(rows["segments"])
  out = RUN(PrefixLM(**TINY), params, TOKENS[:1, places], rows)
  np.testing.assert_allclose(out[0], logits[0, places], rtol=1e-4, atol=1e-5)


def test_positions_matter_by_their_differences(params, logits):
  moved = RUN(PrefixLM(**TINY), params, TOKENS, ROWS | {"positions": ROWS["positions"] + 50})
  np.testing.assert_allclose(moved, logits, rtol=1e-3, atol=1e-4)
  stretched = RUN(PrefixLM(**TINY), params, TOKENS, ROWS | {"positions": ROWS["positions"] * 2})
  assert np.abs(stretched - logits).max() > 1e-3


@pytest.fixture(scope="module")
def unrolled(params):
  return gradient(PrefixLM(**TINY, dropout=0.3), params, KEYS)


@pytest.mark.parametrize("options", [{"remat": "full"}, {"unroll": 1, "remat": "dots"}], ids=str)
def test_rolled_and_rematerialised_equal_unrolled(params, unrolled, options):
  other = gradient(PrefixLM(**TINY, dropout=0.3, **options), params, KEYS)
  np.testing.assert_allclose(other[0], unrolled[0], rtol=1e-4)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), other[1], unrolled[1])


def test_gradients_are_finite_and_reach_everything(unrolled):
  assert all(np.all(np.isfinite(leaf)) and np.any(leaf) for leaf in jax.tree.leaves(unrolled[1]))


def test_dropout_follows_the_row_and_needs_keys(params, logits):
  model = PrefixLM(**TINY, dropout=0.3)
  out = RUN(model, params, TOKENS, ROWS, KEYS)
  assert not np.allclose(out, logits, atol=1e-2)
  turned = RUN(model, params, TOKENS[::-1], {key: value[::-1] for key, value in ROWS.items()}, KEYS[::-1])
  np.testing.assert_allclose(turned[::-1], out, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(RUN(model, params), logits, rtol=1e-5, atol=1e-5)


def test_bfloat16_operands_stay_near_float32(params, logits):
  out = RUN(PrefixLM(**TINY, dtype="bfloat16"), params)
  assert out.dtype == jnp.float32
  assert 1e-4 < np.abs(out - logits).max() < 0.1


def test_tied_head_reads_the_embedding(params):
  untied = params | {"logits_dense": {"kernel": params["token_embedder"]["embedding"].T / 4}}
  tied = {key: value for key, value in params.items() if key != "logits_dense"}
  expected = RUN(PrefixLM(**TINY), untied)
  np.testing.assert_allclose(RUN(PrefixLM(**TINY, head="tied"), tied), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  ("options", "message"),
  [({"variant": "1B"}, "did you mean 1b"), ({"head_width": 5}, "head_width 5.*even"), ({"depth": -1}, "depth -1")],
)
def test_mistakes_fail_at_construction(options, message):
  with pytest.raises(UserError, match=message):
    PrefixLM(**TINY | options)
