import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.augment.normalize import STATISTICS, denormalize, normalize


@pytest.mark.parametrize(
  "name, expected",
  [
    ("imagenet", (0.0655022, 0.1964286, 0.4177778)),
    ("clip", (0.0690368, 0.1613934, 0.3328386)),
    ("half", (0, 0, 0)),
    ("none", (0.5, 0.5, 0.5)),
  ],
)
def test_middle_gray(name, expected):
  np.testing.assert_allclose(normalize(jnp.full((2, 3), 0.5), name)[1], expected, atol=1e-6)


@pytest.mark.parametrize("name", STATISTICS)
def test_inverse(name):
  images = jnp.asarray(np.random.default_rng(0).random((2, 4, 4, 3)), jnp.float32)
  np.testing.assert_allclose(denormalize(normalize(images, name), name), images, atol=1e-6)


def test_pictures_are_clipped():
  np.testing.assert_array_equal(denormalize(jnp.array([-9.0, 0.0, 9.0]), "imagenet"), np.float32([0, 0.456, 1]))
