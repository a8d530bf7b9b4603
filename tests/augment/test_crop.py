import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ssljax.augment import crop

resample = jax.jit(crop.resample, static_argnames=("size", "filter", "dtype"))
PIL_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def pillow(image, box, size, filter):
  """One picture [H,W,3] resized plane by plane in float, as rows of planes [size,3,size]."""
  height, width = image.shape[:2]
  box = tuple(float(edge) * side for edge, side in zip(box, (width, height, width, height), strict=True))
  planes = [
    Image.fromarray(image[..., c].astype(np.float32)).resize((size, size), PIL_FILTERS[filter], box=box)
    for c in range(3)
  ]
  return np.stack([np.asarray(plane) for plane in planes], axis=1)


def random_boxes(generator, shape):
  low = generator.uniform(0, 0.6, (*shape, 2))
  high = low + generator.uniform(0.1, 0.4, (*shape, 2))
  return np.concatenate([low, high], -1).astype(np.float32)


@pytest.mark.parametrize("filter", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [5, 24])  # shrinking and enlarging
def test_resample_is_pillows(filter, size):
  generator = np.random.default_rng(size)
  images = generator.integers(0, 256, (3, 22, 31, 3), dtype=np.uint8)
  boxes = random_boxes(generator, (3, 2))
  boxes[0, 0] = (0, 0, 1, 1)
  found = resample(jnp.asarray(images), jnp.asarray(boxes), size=size, filter=filter)
  expected = [[pillow(image, box, size, filter) for box in row] for image, row in zip(images, boxes, strict=True)]
  np.testing.assert_allclose(found, expected, atol=0.02)  # of 255: Pillow rounds the edges of a box in double


def test_resample_in_bfloat16_is_near():
  generator = np.random.default_rng(1)
  images = generator.integers(0, 256, (2, 24, 24, 3), dtype=np.uint8)
  boxes = jnp.asarray(random_boxes(generator, (2, 1)))
  exact = resample(images, boxes, size=16, filter="bilinear")
  near = resample(images, boxes, size=16, filter="bilinear", dtype="bfloat16")
  assert near.dtype == jnp.float32
  assert 0 < np.abs(exact - near).max() < 2.5  # two roundings of 8 bits


def test_flip_mirrors():
  generator = np.random.default_rng(2)
  images = generator.integers(0, 256, (2, 20, 20, 3), dtype=np.uint8)
  boxes = jnp.asarray(random_boxes(generator, (2, 3)))
  plain = resample(images, boxes, size=12, filter="bicubic")
  mirrored = resample(images, crop.flip(boxes), size=12, filter="bicubic")
  np.testing.assert_allclose(mirrored, plain[..., ::-1], atol=2e-3)


def test_whole_canvas_at_its_own_size_is_the_picture():
  images = np.random.default_rng(3).integers(0, 256, (1, 9, 9, 3), dtype=np.uint8)
  whole = jnp.array([[[0.0, 0.0, 1.0, 1.0]]])
  found = resample(images, whole, size=9, filter="bicubic")
  np.testing.assert_allclose(jnp.swapaxes(found[:, 0], -1, -2), images, atol=1e-3)


def torchvision_box(uniform, aspect, scale, ratio):
  """The loop of RandomResizedCrop.get_params on a picture of height 1 and width `aspect`, without rounding."""
  width, height = aspect, 1.0
  for area, shape in zip(uniform[:10], uniform[10:20], strict=True):
    target = width * height * (scale[0] + (scale[1] - scale[0]) * area)
    wanted = np.exp(np.log(ratio[0]) + (np.log(ratio[1]) - np.log(ratio[0])) * shape)
    w, h = np.sqrt(target * wanted), np.sqrt(target / wanted)
    if w <= width and h <= height:
      left, top = uniform[20] * (width - w), uniform[21] * (height - h)
      break
  else:
    w, h = width, height
    if width / height < ratio[0]:
      h = w / ratio[0]
    elif width / height > ratio[1]:
      w = h * ratio[1]
    left, top = (width - w) / 2, (height - h) / 2
  return left / width, top, (left + w) / width, top + h


@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.9, 1.0)])  # the second often needs the fallback
def test_random_box_is_torchvisions(scale):
  generator = np.random.default_rng(4)
  uniform = generator.random((200, crop.NUMBERS)).astype(np.float32)
  aspect = np.exp(generator.uniform(-1.2, 1.2, 200)).astype(np.float32)
  draw = jax.jit(jax.vmap(lambda u, a: crop.random_box(u, a, scale=jnp.array(scale))))
  expected = [torchvision_box(u, a, scale, crop.RATIO) for u, a in zip(uniform, aspect, strict=True)]
  np.testing.assert_allclose(draw(uniform, aspect), expected, atol=1e-5)


def test_random_boxes_keep_their_bounds_in_the_original():
  uniform = np.random.default_rng(5).random((4000, crop.NUMBERS)).astype(np.float32)
  aspect, scale = jnp.float32(1.5), jnp.array([0.2, 0.5])  # every first try fits, so that none is favoured
  boxes = np.asarray(jax.jit(jax.vmap(lambda u: crop.random_box(u, aspect, scale=scale)))(uniform))
  width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
  assert boxes.min() >= -1e-6 and boxes.max() <= 1 + 1e-6
  assert 0.2 - 1e-5 <= (width * height).min() < 0.21 and 0.49 < (width * height).max() <= 0.5 + 1e-5
  ratio = aspect * width / height
  assert 0.75 - 1e-4 <= ratio.min() < 0.76 and 1.32 < ratio.max() <= 4 / 3 + 1e-4
  assert abs(np.log(ratio).mean()) < 0.01  # log-uniform, symmetric around 1


@pytest.mark.parametrize(
  "aspect, expected", [(1.0, (0, 0, 1, 1)), (2.0, (0.25, 0, 0.75, 1)), (0.5, (0, 0.25, 1, 0.75))]
)
def test_center_box(aspect, expected):
  np.testing.assert_allclose(crop.center_box(jnp.array([aspect]))[0], expected, atol=1e-7)
