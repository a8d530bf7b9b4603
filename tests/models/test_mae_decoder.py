import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.errors import UserError
from ssljax.models.mae_decoder import MAEDecoder

DECODER = MAEDecoder(grid=(2, 3), outputs=5, width=8, depth=1, heads=2)
TOKENS = np.random.default_rng(0).normal(size=(2, 2, 4)).astype("float32")
RESTORE = np.array([[3, 0, 2, 1, 5, 4], [0, 4, 5, 1, 3, 2]], np.int32)  # visible: patches 1 and 3; 0 and 3


def run(variables, tokens=TOKENS, restore=RESTORE, cls=None):
  return jax.jit(lambda t, r, c: DECODER.apply(variables, t, r, cls=c))(tokens, restore, cls)


def test_predicts_all_patches_and_the_cls_token_joins_in(random_variables):
  variables = random_variables(DECODER, TOKENS, RESTORE)
  without, given = run(variables), run(variables, cls=TOKENS[:, 0])
  assert without.shape == given.shape == (2, 6, 5)
  assert not np.allclose(without, given, atol=1e-3)


def test_tokens_return_to_their_patches(random_variables):
  variables = random_variables(DECODER, TOKENS, RESTORE)
  variables["params"]["blocks"] = jax.tree.map(jnp.zeros_like, variables["params"]["blocks"])  # no mixing
  base = run(variables)
  changed = run(variables, TOKENS + np.array([[[1], [0]], [[0], [1]]]) * np.arange(4.0, dtype="float32"))
  moved = np.abs(changed - base).max(-1) > 1e-4
  np.testing.assert_array_equal(moved, [[0, 1, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0]])


def test_order_among_the_masked_does_not_matter(random_variables):
  variables = random_variables(DECODER, TOKENS, RESTORE)
  other = np.array([[5, 0, 4, 1, 3, 2], [0, 3, 2, 1, 5, 4]], np.int32)
  np.testing.assert_array_equal(run(variables), run(variables, restore=other))


def test_mask_token_keeps_the_shape_that_is_decayed():
  params = jax.jit(MAEDecoder(grid=(2, 3), outputs=5, width=512, depth=1).init)(jax.random.key(0), TOKENS, RESTORE)
  token = params["params"]["mask_token"]
  assert token.shape == (1, 1, 512)
  np.testing.assert_allclose(token.std(), 0.02, rtol=0.15)


def test_heads_must_divide_the_width():
  with pytest.raises(UserError, match=r"decoder_width: 10.*decoder_heads=4"):
    MAEDecoder(grid=(2, 2), outputs=4, width=10, heads=4)
