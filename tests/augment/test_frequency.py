import jax
import numpy as np
import pytest

from ssljax.augment.frequency import low_frequencies


def slow(x, size):
  """The definition: the four corners of the Fourier transform of x [S,S], transformed back."""
  spectrum, half = np.fft.fft2(x), size // 2
  kept = np.empty((size, size), complex)
  kept[:half, :half], kept[:half, half:] = spectrum[:half, :half], spectrum[:half, -half:]
  kept[half:, :half], kept[half:, half:] = spectrum[-half:, :half], spectrum[-half:, -half:]
  return np.fft.ifft2(kept * (size / len(x)) ** 2).real


@pytest.mark.parametrize("side, size", [(12, 8), (12, 6), (9, 4), (8, 8), (6, 2)])
def test_it_is_the_fourier_crop(side, size):
  rows = np.random.default_rng(0).uniform(size=(2, side, 3, side)).astype(np.float32)
  made = np.asarray(low_frequencies(rows, size=size))
  assert made.shape == (2, size, 3, size)
  for image in range(2):
    for channel in range(3):
      np.testing.assert_allclose(made[image, :, channel], slow(rows[image, :, channel], size), atol=2e-6)


def test_low_waves_pass_high_ones_vanish_and_the_mean_stays():
  where = np.arange(16) / 16
  wave = lambda k: np.cos(2 * np.pi * k * where)
  rows = np.stack([1 + wave(2)[:, None] * wave(1), 1 + wave(6)[:, None] * wave(1)])[:, :, None].repeat(3, 2)
  made = np.asarray(low_frequencies(rows.astype(np.float32), size=8))
  small = np.arange(8) / 8
  expected = 1 + np.cos(2 * np.pi * 2 * small)[:, None] * np.cos(2 * np.pi * small)
  np.testing.assert_allclose(made[0, :, 1], expected, atol=1e-5)
  np.testing.assert_allclose(made[1], 1, atol=1e-5)


def test_bfloat16_operands_are_near():
  rows = np.random.default_rng(1).uniform(size=(1, 8, 3, 8)).astype(np.float32)
  exact, near = (jax.jit(lambda x, d=d: low_frequencies(x, size=4, dtype=d))(rows) for d in ("float32", "bfloat16"))
  assert 0 < np.abs(exact - near).max() < 2e-2
