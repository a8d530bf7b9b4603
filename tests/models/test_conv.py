import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.models.conv import Conv, convolve

X = np.random.default_rng(0).normal(size=(2, 6, 5, 3)).astype("float32")


@pytest.mark.parametrize(("size", "stride"), [(3, 1), (3, 2), (1, 2), (7, 2)])
def test_loop_by_loop(size, stride):
  kernel = np.random.default_rng(1).normal(size=(size, size, 3, 4)).astype("float32")
  padded = np.pad(X, ((0, 0), (size // 2,) * 2, (size // 2,) * 2, (0, 0)))
  rows, columns = -(-6 // stride), -(-5 // stride)
  expected = np.zeros((2, rows, columns, 4))
  for r in range(rows):
    for c in range(columns):
      window = padded[:, r * stride : r * stride + size, c * stride : c * stride + size]
      expected[:, r, c] = np.einsum("bijc,ijco->bo", window, kernel)
  np.testing.assert_allclose(convolve(jnp.asarray(X), kernel, stride=stride), expected, rtol=1e-4, atol=1e-4)


def test_bfloat16_rounds_operands_forward_and_backward():
  kernel = np.random.default_rng(1).normal(size=(3, 3, 3, 4)).astype("float32")

  def run(dtype):
    f = lambda x, w: jnp.sum(jnp.sin(convolve(x, w, stride=2, dtype=dtype)))
    return jax.jit(jax.grad(f, (0, 1)))(X, kernel)

  for exact, rounded in zip(run("float32"), run("bfloat16"), strict=True):
    assert rounded.dtype == jnp.float32
    relative = np.linalg.norm(exact - rounded) / np.linalg.norm(exact)
    assert 1e-5 < relative < 0.05


def test_initialisation_is_normal_by_fan_out():
  kernel = Conv(64, 3).init(jax.random.key(0), jnp.zeros((1, 4, 4, 32)))["params"]["kernel"]
  np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 64)), rtol=0.03)
  assert np.abs(kernel).max() > 3 * kernel.std()
