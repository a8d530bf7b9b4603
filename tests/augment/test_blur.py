import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.augment import blur


def convolve(image, sigma, length):
  """One picture [H,W,3] convolved in both directions over reflected edges, tap by tap."""
  half = length // 2
  kernel = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma) ** 2)
  kernel /= kernel.sum()
  padded = np.pad(image, ((half, half), (half, half), (0, 0)), mode="reflect")
  result = np.zeros_like(image)
  for y, x in np.ndindex(length, length):
    result += kernel[y] * kernel[x] * padded[y : y + image.shape[0], x : x + image.shape[1]]
  return result


@pytest.mark.parametrize("size", [10, 24, 70])
def test_blur_is_the_convolution_over_reflected_edges(size):
  images = np.random.default_rng(size).random((3, size, size, 3))
  sigma = np.array([0.1, 0.9, 2.0])
  rows = jnp.swapaxes(jnp.asarray(images, jnp.float32), -1, -2)
  found = jax.jit(blur.gaussian_blur)(rows, jnp.asarray(sigma, jnp.float32), jnp.full(3, True))
  expected = [convolve(image, s, blur.taps(size)) for image, s in zip(images, sigma, strict=True)]
  np.testing.assert_allclose(jnp.swapaxes(found, -1, -2), expected, atol=1e-5)


def test_long_kernel_reflects_at_both_edges():
  sigma, size, length = 1.7, 8, 11
  matrix = blur.toeplitz(jnp.array([sigma]), size=size, length=length)[0]
  signal = np.random.default_rng(0).random(size)
  kernel = np.exp(-0.5 * (np.arange(-5, 6) / sigma) ** 2)
  expected = np.convolve(np.pad(signal, 5, mode="reflect"), kernel / kernel.sum(), mode="valid")
  np.testing.assert_allclose(matrix @ signal, expected, atol=1e-6)
  np.testing.assert_allclose(matrix.sum(-1), 1, atol=1e-6)


def test_no_change_where_not_applied():
  rows = jnp.asarray(np.random.default_rng(1).random((2, 24, 3, 24)), jnp.float32)
  found = jax.jit(blur.gaussian_blur)(rows, jnp.array([2.0, 2.0]), jnp.array([False, True]))
  np.testing.assert_array_equal(found[0], rows[0])
  assert np.abs(found[1] - rows[1]).max() > 0.05


@pytest.mark.parametrize("size, length", [(224, 23), (96, 9), (64, 7), (32, 3), (16, 1), (5, 1)])
def test_a_tenth_of_the_side_made_odd(size, length):
  assert blur.taps(size) == length
