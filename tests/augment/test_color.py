import colorsys
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from ssljax.augment import color

jitter, turn_hue = jax.jit(color.jitter), jax.jit(color.turn_hue)


def to_rows(images):
  return jnp.swapaxes(jnp.asarray(images, jnp.float32), -1, -2)


def from_rows(rows):
  return np.asarray(jnp.swapaxes(rows, -1, -2))


def random_images(count, seed=0):
  return np.random.default_rng(seed).random((count, 6, 5, 3)).astype(np.float32)


def gray(image):
  return 0.299 * image[..., 0] + 0.587 * image[..., 1] + 0.114 * image[..., 2]


def apply_one(image, operation, factor):
  """torchvision's functional forms, the hue pixel by pixel through the standard library."""
  if operation == color.BRIGHTNESS:
    return np.clip(factor * image, 0, 1)
  if operation == color.CONTRAST:
    return np.clip(factor * image + (1 - factor) * gray(image).mean(), 0, 1)
  if operation == color.SATURATION:
    return np.clip(factor * image + (1 - factor) * gray(image)[..., None], 0, 1)
  turned = np.empty_like(image)
  for y, x in np.ndindex(image.shape[:2]):
    h, s, v = colorsys.rgb_to_hsv(*image[y, x])
    turned[y, x] = colorsys.hsv_to_rgb((h + factor) % 1, s, v)
  return turned


def test_jitter_in_each_of_the_24_orders():
  orders = np.array(list(itertools.permutations(range(4))))
  generator = np.random.default_rng(1)
  factors = np.concatenate([generator.uniform(0.2, 1.8, (24, 3)), generator.uniform(-0.5, 0.5, (24, 1))], 1)
  images = random_images(24)
  draw = color.Jitter(factors=jnp.asarray(factors, jnp.float32), order=jnp.asarray(orders))
  found = from_rows(jitter(to_rows(images), draw))
  for image, factor, order, result in zip(images.astype(np.float64), factors, orders, found, strict=True):
    for operation in order:
      image = apply_one(image, operation, factor[operation])
    np.testing.assert_allclose(result, image, atol=2e-5, err_msg=str(order))


@pytest.mark.parametrize("factor", [0.3, 1.0, 1.6])
@pytest.mark.parametrize(
  "enhancer, mean, gray", [(ImageEnhance.Brightness, 0, 0), (ImageEnhance.Contrast, 1, 0), (ImageEnhance.Color, 0, 1)]
)
def test_blend_is_pillows_enhancer(enhancer, mean, gray, factor):
  image = (random_images(1)[0] * 255).astype(np.uint8)
  expected = np.asarray(enhancer(Image.fromarray(image)).enhance(factor), np.float32)
  mean, gray, factors = (jnp.array([x], jnp.float32) for x in (mean, gray, factor))
  found = from_rows(jax.jit(color.blend)(to_rows(image[None] / 255), factors, mean=mean, gray=gray))[0]
  np.testing.assert_allclose(found * 255, expected, atol=2)  # Pillow rounds to whole values


def test_no_change_at_neutral_factors():
  images = random_images(24)
  neutral = jnp.tile(jnp.array([1.0, 1.0, 1.0, 0.0]), (24, 1))
  found = jitter(to_rows(images), color.Jitter(factors=neutral, order=jnp.array(color.ORDERS)))
  np.testing.assert_allclose(from_rows(found), images, atol=1e-6)


def test_hue_exact_cases():
  red = to_rows(np.tile([0.8, 0.2, 0.2], (3, 2, 2, 1)))
  turned = from_rows(turn_hue(red, jnp.array([1 / 3, -1 / 3, 0.5])))[:, 0, 0]
  np.testing.assert_allclose(turned, [[0.2, 0.8, 0.2], [0.2, 0.2, 0.8], [0.2, 0.8, 0.8]], atol=1e-6)
  flat = to_rows(np.full((1, 2, 2, 3), 0.4))
  np.testing.assert_allclose(turn_hue(flat, jnp.array([0.2])), flat, atol=1e-7)  # gray has no hue


def test_grayscale_weights_and_mask():
  primaries = to_rows(np.eye(3).reshape(1, 1, 3, 3).repeat(2, 0))
  found = from_rows(color.grayscale(primaries, jnp.array([True, False])))
  np.testing.assert_allclose(found[0, 0], np.repeat([[0.299], [0.587], [0.114]], 3, axis=1), atol=1e-7)
  np.testing.assert_array_equal(found[1, 0], np.eye(3))


def test_solarize():
  values = np.array([0.0, 0.25, 0.49, 0.5, 0.75, 1.0]).reshape(1, 1, 2, 3).repeat(2, 0)
  found = from_rows(color.solarize(to_rows(values), jnp.array([True, False])))
  np.testing.assert_allclose(found[0].ravel(), [0.0, 0.25, 0.49, 0.5, 0.25, 0.0], atol=1e-6)
  np.testing.assert_allclose(found[1], values[1], atol=1e-7)


def test_random_jitter_bounds_share_and_orders():
  count = 24_000
  uniform = np.random.default_rng(2).random((count, 6)).astype(np.float32)
  strengths = jnp.array([0.4, 0.8, 1.5, 0.2])
  draw = jax.jit(jax.vmap(lambda u: color.random_jitter(u, strengths=strengths, probability=0.8)))(uniform)
  factors, order = np.asarray(draw.factors), np.asarray(draw.order)
  unchanged = (factors == np.array([1, 1, 1, 0], np.float32)).all(1)
  assert abs(unchanged.mean() - 0.2) < 0.01
  low, high = factors.min(0), factors.max(0)
  np.testing.assert_allclose(low, [0.6, 0.2, 0.0, -0.2], atol=2e-3)  # the third is max(0, 1 - 1.5)
  np.testing.assert_allclose(high, [1.4, 1.8, 2.5, 0.2], atol=2e-3)
  assert (low >= np.array([0.6, 0.2, 0, -0.2]) - 1e-6).all() and (high <= np.array([1.4, 1.8, 2.5, 0.2]) + 1e-6).all()
  assert (np.sort(order, 1) == np.arange(4)).all()
  times = np.unique(order @ [64, 16, 4, 1], return_counts=True)[1]
  assert len(times) == 24 and np.abs(times - 1000).max() < 5 * np.sqrt(1000)
