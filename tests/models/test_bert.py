"""BERT's padding, segments and pooling; its numbers are compared with published code in tests/export."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax import tree
from ssljax.errors import UserError
from ssljax.models.bert import Bert

TINY = dict(vocab_size=20, length=8, width=8, depth=2, heads=2)
TOKENS = jnp.array([[1, 5, 9, 0, 0], [1, 7, 3, 4, 9]])
RUN = jax.jit(lambda model, variables, *args: model.apply(variables, args[0], **dict(*args[1:])), static_argnums=0)


@pytest.fixture(scope="module")
def variables(random_variables):
  return random_variables(Bert(**TINY), TOKENS)


@pytest.fixture(scope="module")
def out(variables):
  return RUN(Bert(**TINY, pooling="mean"), variables, TOKENS)


def test_names_and_shapes(variables):
  shapes = {name: leaf.shape for name, leaf in tree.named_leaves(variables["params"])}
  outer = {name: shape for name, shape in shapes.items() if not name.startswith("blocks/")}
  assert outer == {
    "token_embedder/embedding": (20, 8), "pos_embed": (8, 8), "type_embed": (2, 8),
    "norm_pre/scale": (8,), "norm_pre/bias": (8,),
  }  # fmt: skip
  assert shapes["blocks/norm2/scale"] == (2, 8)


def test_padding_is_not_seen_and_not_counted(out, variables):
  model = Bert(**TINY, pooling="mean")
  np.testing.assert_allclose(out["embedding"][0], out["tokens"][0, :3].mean(0), rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(out["embedding"][1], out["tokens"][1].mean(0), rtol=1e-5, atol=1e-6)
  short = RUN(model, variables, TOKENS[:1, :3])
  np.testing.assert_allclose(short["tokens"], out["tokens"][:1, :3], rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(short["embedding"], out["embedding"][:1], rtol=1e-5, atol=1e-6)


def test_a_mask_says_what_padding_is(out, variables):
  mask = jnp.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
  other = TOKENS.at[0, 3:].set(13)  # any id may stand there
  masked = RUN(Bert(**TINY, pooling="mean"), variables, other, {"mask": mask})
  np.testing.assert_allclose(masked["embedding"], out["embedding"], rtol=1e-5, atol=1e-6)
  empty = RUN(Bert(**TINY, pooling="mean"), variables, other, {"mask": mask.at[0].set(0)})["embedding"]
  assert np.isfinite(empty).all() and not np.any(empty[0])


def test_the_largest_of_each_number(out, variables):
  found = jax.jit(lambda v, tokens: Bert(**TINY, pooling="max").apply(v, tokens)["embedding"])
  expected = [np.asarray(out["tokens"][0, :3]).max(0), np.asarray(out["tokens"][1]).max(0)]
  np.testing.assert_allclose(found(variables, TOKENS), expected, rtol=1e-5, atol=1e-6)
  assert not np.any(found(variables, jnp.zeros_like(TOKENS)))


def test_segments_and_the_first_token(out, variables):
  cls = RUN(Bert(**TINY), variables, TOKENS)
  np.testing.assert_allclose(cls["embedding"], out["tokens"][:, 0], rtol=1e-5, atol=1e-6)
  zeros = RUN(Bert(**TINY), variables, TOKENS, {"types": jnp.zeros_like(TOKENS)})["tokens"]
  np.testing.assert_allclose(zeros, out["tokens"], rtol=1e-5, atol=1e-6)
  ones = RUN(Bert(**TINY), variables, TOKENS, {"types": jnp.ones_like(TOKENS)})["tokens"]
  assert np.abs(ones - out["tokens"]).max() > 1e-3


@pytest.mark.parametrize(("options", "message"), [({"pooling": "median"}, "pooling median"), ({"depth": 0}, "depth 0")])
def test_mistakes_fail_at_construction(options, message):
  with pytest.raises(UserError, match=f"bert.Bert: {message}"):
    Bert(**TINY | options)
