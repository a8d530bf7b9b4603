import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ssljax import rng, sharding
from ssljax.augment.draw import GLOBAL, draw_views
from ssljax.augment.recipes import RECIPES
from ssljax.augment.views import Views
from ssljax.errors import UserError
from ssljax.view_numbers import NAMES

BATCH, CANVAS, SIZE = 16, 24, 16


@pytest.fixture(scope="module")
def batch():
  generator = np.random.default_rng(0)
  return {
    "image": generator.integers(0, 256, (BATCH, CANVAS, CANVAS, 3), dtype=np.uint8),
    "aspect": np.exp(generator.uniform(-0.7, 0.7, BATCH)).astype(np.float32),
    "label": np.arange(BATCH, dtype=np.int32),
    "index": np.stack([np.zeros(BATCH), np.arange(BATCH) + 7], 1).astype(np.uint32),
  }


@pytest.fixture(scope="module")
def keys(batch):
  return rng.example_keys(rng.use_key(jax.random.key(0), rng.AUGMENT), batch["index"])


@pytest.fixture(scope="module")
def byol():
  return jax.jit(Views(recipe="byol", size=SIZE))


@pytest.mark.parametrize("recipe", RECIPES)
def test_shapes_and_leaves(recipe, keys, batch):
  views = Views(recipe=recipe, size=32)
  made = jax.eval_shape(views, keys, batch)
  assert set(made) - {"aspect", "label", "index"} == set(views.produces)
  several, small = len(RECIPES[recipe].views), len(RECIPES[recipe].local_views)
  expected = {
    "image": (BATCH, 32, 32, 3),
    "views": (BATCH, several, 32, 32, 3),
    "local_views": (BATCH, small, 16, 16, 3),
  }
  for name in views.produces:
    assert made[name].shape == expected[name] and made[name].dtype == jnp.float32


def test_other_leaves_pass_through(byol, keys, batch):
  made = byol(keys, batch)
  assert "image" not in made
  for name in ("aspect", "label", "index"):
    np.testing.assert_array_equal(made[name], batch[name])


def test_the_key_alone_decides_not_the_place_in_the_batch(byol, keys, batch):
  order = np.random.default_rng(1).permutation(BATCH)
  shuffled = {name: leaf[order] for name, leaf in batch.items()}
  np.testing.assert_array_equal(byol(keys[order], shuffled)["views"], byol(keys, batch)["views"][order])


def test_same_on_eight_devices_without_communication(byol, keys, batch):
  mesh = sharding.make_mesh()
  placed = jax.device_put((keys, batch), sharding.batch_sharding(mesh))
  with jax.set_mesh(mesh):
    compiled = jax.jit(Views(recipe="byol", size=SIZE)).lower(*placed).compile()
  for collective in ("all-gather", "all-to-all", "collective-permute", "all-reduce"):
    assert collective not in compiled.as_text()
  np.testing.assert_allclose(compiled(*placed)["views"], byol(keys, batch)["views"], atol=2e-5)


def test_other_keys_give_other_views_and_views_differ(byol, keys, batch):
  made = np.asarray(byol(keys, batch)["views"])
  other = np.asarray(byol(keys[::-1], batch)["views"])
  assert (np.abs(made - other).max((2, 3, 4)) > 1e-3).all()
  assert (np.abs(made[:, 0] - made[:, 1]).max((1, 2, 3)) > 1e-3).all()


def test_mae_is_pillows_crop_normalised(keys, batch):
  views = Views(recipe="mae", size=SIZE)

  @jax.jit
  def both(keys, batch):
    return views(keys, batch)["image"], draw_views(keys, batch["aspect"], RECIPES["mae"].views, first=GLOBAL).box[:, 0]

  images, boxes = both(keys, batch)
  made, boxes = views.restore(images), np.asarray(boxes) * CANVAS
  for image, (left, top, right, bottom), found in zip(batch["image"], boxes, made, strict=True):
    box = (min(left, right), top, max(left, right), bottom)
    planes = [Image.fromarray(image[..., c].astype(np.float32)) for c in range(3)]
    resized = [plane.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=box) for plane in planes]
    expected = np.clip(np.stack(resized, -1) / 255, 0, 1)
    np.testing.assert_allclose(found, expected[:, ::-1] if right < left else expected, atol=2e-4)


def test_evaluate_is_the_centre_square_of_the_original(batch):
  views = Views(recipe="simclr", size=12, normalize="half", filter="bilinear")
  made = jax.jit(views.evaluate)(batch)
  assert "views" not in made and (made["label"] == batch["label"]).all()
  original = Image.fromarray(batch["image"][0, ..., 0].astype(np.float32))
  aspect = batch["aspect"][0]
  width, height = min(1, 1 / aspect) * CANVAS, min(1, aspect) * CANVAS
  box = ((CANVAS - width) / 2, (CANVAS - height) / 2, (CANVAS + width) / 2, (CANVAS + height) / 2)
  expected = np.asarray(original.resize((12, 12), Image.Resampling.BILINEAR, box=box)) / 255 * 2 - 1
  np.testing.assert_allclose(made["image"][0, ..., 0], expected, atol=1e-4)


def test_none_is_what_evaluation_sees(keys, batch):
  views = Views(recipe="none", size=8)
  both = jax.jit(lambda keys, batch: (views(keys, batch)["image"], views.evaluate(batch)["image"]))
  np.testing.assert_array_equal(*both(keys, batch))


def test_overrides(keys, batch):
  whole = Views(recipe="ijepa", size=CANVAS, crop_scale=(1.0, 1.0), normalize="none")
  square = batch | {"aspect": np.ones(BATCH, np.float32)}
  # The whole area fits at ratio 1 alone, so that all ten tries fail and the whole picture is taken.
  np.testing.assert_allclose(jax.jit(whole)(keys, square)["image"], batch["image"] / np.float32(255), atol=1e-5)
  calm = Views(recipe="simclr_cifar", size=8, strength=0.0)
  assert all(view.jitter == (0.0, 0.0, 0.0, 0.0) for view in calm._views)
  upright = Views(recipe="dino", size=64, flip=0.0)
  assert {view.flip for view in upright._views + upright._local_views} == {0.0}
  assert [view.replace(flip=0.5) for view in upright._views] == list(Views(recipe="dino", size=64)._views)
  few = Views(recipe="dino", size=64, num_local=3, local_size=20, local_crop_scale=(0.1, 0.3))
  assert jax.eval_shape(few, keys, batch)["local_views"].shape == (BATCH, 3, 20, 20, 3)
  assert few._local_views[2].crop == (0.1, 0.3) and few._views[0].crop == (0.4, 1.0)
  assert Views(recipe="swav", size=64, num_local=0).produces == ("views",)


@pytest.mark.parametrize("size, local_size", [(224, 96), (96, 40), (64, 24), (32, 16), (8, 8)])
def test_local_views_are_three_sevenths(size, local_size):
  assert Views(recipe="dino", size=size)._local_size == local_size


@pytest.mark.parametrize(
  "settings, words",
  [
    (dict(recipe="simclir"), ("augment.recipe", "did you mean simclr?")),
    (dict(size=0), ("augment.size: 0", "at least 1")),
    (dict(recipe="dino", local_size=0), ("augment.local_size: 0",)),
    (dict(recipe="dino", num_local=-1), ("augment.num_local: -1",)),
    (dict(strength=-0.5), ("augment.strength: -0.5",)),
    (dict(flip=1.5), ("augment.flip: 1.5", "from 0 to 1")),
    (dict(crop_scale=(0.5, 0.2)), ("augment.crop_scale: (0.5, 0.2)",)),
    (dict(crop_scale=(0.5, 1.2)), ("augment.crop_scale: (0.5, 1.2)",)),
    (dict(filter="lanczos"), ("augment.filter", "bicubic")),
    (dict(normalize="imagenette"), ("did you mean imagenet?",)),
    (dict(local_size=16), ("recipe mae has no local views", "dino, obow, swav")),
  ],
)
def test_mistakes_are_named(settings, words):
  with pytest.raises(UserError) as error:
    Views(**({"recipe": "mae", "size": 16} | settings))
  for word in words:
    assert word in str(error.value) and "\n" not in str(error.value)


def test_what_is_told_is_what_was_done_to_the_box(keys, batch):
  """In a picture whose red grows to the right and whose green grows downwards."""
  ramp = ((np.arange(CANVAS) + 0.5) / CANVAS * 255).astype(np.uint8)
  picture = np.stack([*np.broadcast_arrays(ramp[None, :], ramp[:, None]), np.zeros((CANVAS, CANVAS), np.uint8)], -1)
  views = Views(recipe="mae", size=SIZE, normalize="none", filter="bilinear", tell="transforms")
  made = jax.jit(views)(keys, batch | {"image": np.broadcast_to(picture, (BATCH, *picture.shape))})
  assert made["transforms"].shape == (BATCH, 1, len(NAMES))
  left, top, width, height = np.asarray(made["transforms"])[:, 0, :4].T
  np.testing.assert_allclose(made["image"][..., 0].mean((1, 2)), left + width / 2, atol=0.02)
  np.testing.assert_allclose(made["image"][..., 1].mean((1, 2)), top + height / 2, atol=0.02)
  step = np.asarray(made["image"][:, SIZE // 2, 1:, 0] - made["image"][:, SIZE // 2, :-1, 0]).mean(1)
  np.testing.assert_allclose(step * SIZE, width, atol=0.1)
  assert (width < 0).any() and (width > 0).any()
  assert not np.asarray(made["transforms"])[..., 4:].any()


def test_what_is_told_is_what_was_done_to_the_colours(keys, batch):
  views = Views(recipe="byol", size=SIZE, crop_scale=(1.0, 1.0), tell="transforms", normalize="none")
  made = jax.jit(views)(keys, batch)
  told = dict(zip(NAMES, np.moveaxis(np.asarray(made["transforms"]), -1, 0), strict=True))
  spread = np.ptp(np.asarray(made["views"]), axis=-1).max((2, 3))
  np.testing.assert_array_equal(told["gray"] == 1, spread < 1e-6)
  draws = draw_views(keys, batch["aspect"], RECIPES["byol"].views, first=GLOBAL)
  np.testing.assert_allclose(told["hue"], draws.jitter.factors[..., 3], atol=1e-6)
  np.testing.assert_allclose(told["saturation"], draws.jitter.factors[..., 2] - 1, atol=1e-6)
  np.testing.assert_allclose(told["blur"], np.where(draws.blur, draws.sigma, 0), rtol=1e-6)
  np.testing.assert_array_equal(told["solarize"], draws.solarize)
  assert (told["blur"][:, 0] > 0).all() and (told["blur"][:, 1] == 0).any() and (told["gray"] == 1).any()


def test_nothing_can_be_told_of_no_draw():
  with pytest.raises(UserError, match=r"augment\.tell: found transforms, expected nothing: recipe none draws no views"):
    Views(recipe="none", size=SIZE, tell="transforms")
  with pytest.raises(UserError, match=r"augment\.tell: transform \(did you mean transforms\?"):
    Views(recipe="mae", size=SIZE, tell="transform")
