"""The text tower's masks and pooling; its numbers are compared with published code in tests/export."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax import tree
from ssljax.errors import UserError
from ssljax.models.text_tower import TextTower

TINY = dict(vocab_size=20, length=7, width=8, depth=2, heads=2)
TOKENS = jnp.array([[1, 5, 19, 0, 0, 0], [1, 7, 3, 3, 19, 3]])
RUN = jax.jit(lambda model, variables, tokens: model.apply(variables, tokens), static_argnums=0)


@pytest.fixture(scope="module")
def variables(random_variables):
  return random_variables(TextTower(**TINY), TOKENS)


@pytest.fixture(scope="module")
def out(variables):
  return RUN(TextTower(**TINY), variables, TOKENS)


def test_names_and_shapes(variables):
  shapes = {name: leaf.shape for name, leaf in tree.named_leaves(variables["params"])}
  outer = {name: shape for name, shape in shapes.items() if not name.startswith("blocks/")}
  assert outer == {
    "token_embedder/embedding": (20, 8), "pos_embed": (7, 8), "norm/scale": (8,), "norm/bias": (8,)
  }  # fmt: skip
  assert shapes["blocks/attn/qkv/kernel"] == (2, 8, 3, 8) and shapes["blocks/mlp/fc1/kernel"] == (2, 8, 32)


def test_the_embedding_is_the_token_at_the_end_of_the_text(out, variables):
  ends = out["tokens"][jnp.arange(2), jnp.array([2, 4])]  # the largest id
  np.testing.assert_allclose(out["embedding"], ends, rtol=1e-5, atol=1e-6)
  by_id = RUN(TextTower(**TINY, eos=3), variables, TOKENS)
  np.testing.assert_allclose(by_id["embedding"][1], out["tokens"][1, 2], rtol=1e-5, atol=1e-6)  # the first of three
  last = RUN(TextTower(**TINY, pooling="last"), variables, TOKENS)
  np.testing.assert_allclose(last["embedding"], out["tokens"][:, -1], rtol=1e-5, atol=1e-6)


def test_what_is_behind_a_token_is_seen_from_both_sides_alone(out, variables):
  changed = TOKENS.at[:, 4].set(9)
  causal = RUN(TextTower(**TINY), variables, changed)["tokens"]
  np.testing.assert_allclose(causal[:, :4], out["tokens"][:, :4], rtol=1e-5, atol=1e-6)
  assert np.abs(causal[:, 4:] - out["tokens"][:, 4:]).max(-1).min() > 1e-3
  both = [RUN(TextTower(**TINY, attention="all"), variables, tokens)["tokens"] for tokens in (TOKENS, changed)]
  assert np.abs(both[0] - both[1]).max(-1).min() > 1e-5


def test_a_shorter_row_uses_the_first_positions(out, variables):
  short = RUN(TextTower(**TINY), variables, TOKENS[:, :3])["tokens"]
  np.testing.assert_allclose(short, out["tokens"][:, :3], rtol=1e-5, atol=1e-6)
  with pytest.raises(UserError, match=r"TextTower: texts of 8 tokens, expected at most length=7"):
    jax.eval_shape(TextTower(**TINY).apply, variables, jnp.zeros((1, 8), jnp.int32))


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"heads": 3}, "width 8, expected a multiple of heads=3"),
    ({"vocab_size": 0}, "vocab_size 0, expected 1 or more"),
    ({"attention": "casual"}, "attention casual .did you mean causal"),
    ({"pooling": "first"}, "pooling first"),
    ({"activation": "quickgelu"}, "did you mean quick_gelu"),
  ],
)
def test_mistakes_fail_at_construction(options, message):
  with pytest.raises(UserError, match=f"text_tower.TextTower: .*{message}"):
    TextTower(**TINY | options)
