import dataclasses

import jax
import numpy as np
import pytest

from ssljax import build, rng
from ssljax.augment.frequency import low_frequencies
from ssljax.augment.views import Views
from ssljax.errors import UserError

VIEWS = dict(recipe="simclr_cifar", size=8)


def staged(*stages, **views):
  return build.build({"name": "stages.Stages", "views": VIEWS | views, "stages": stages}, "augment", where="augment")


def test_a_stage_is_the_last_views_with_its_changes():
  found = staged({"until": 3, "bandwidth": 4, "strength": 0.2}, {"until": 9, "crop_scale": [0.5, 1.0]}, strength=0.5)
  last = Views(**VIEWS, strength=0.5)
  assert found.programs == (
    (3, dataclasses.replace(last, bandwidth=4, strength=0.2)),
    (9, dataclasses.replace(last, crop_scale=(0.5, 1.0))),
    (None, last),
  )
  assert staged().programs == ((None, Views(**VIEWS)),)


def test_a_bandwidth_leaves_the_low_frequencies_of_the_same_views():
  generator = np.random.default_rng(0)
  batch = {"image": generator.integers(0, 256, (2, 12, 12, 3), dtype=np.uint8), "aspect": np.ones(2, np.float32)}
  keys = rng.example_keys(jax.random.key(0), np.array([[0, 1], [0, 2]], np.uint32))
  whole, low = Views(**VIEWS), Views(**VIEWS, bandwidth=4)
  made, small, seen = jax.jit(lambda k, b: (whole(k, b)["views"], low(k, b)["views"], low.evaluate(b)["image"]))(
    keys, batch
  )
  assert small.shape == (2, 2, 4, 4, 3) and seen.shape == (2, 8, 8, 3)
  rows = np.swapaxes(np.asarray(made).reshape(4, 8, 8, 3), -1, -2)
  expected = np.swapaxes(low_frequencies(rows, size=4), -1, -2).reshape(2, 2, 4, 4, 3)
  np.testing.assert_allclose(small, expected, atol=1e-5)


@pytest.mark.parametrize(
  "stages, words",
  [
    ([{"until": 0}], ("augment.stages[0].until: found 0", "after 0")),
    ([{"until": 4}, {"until": 4}], ("augment.stages[1].until: found 4", "after 4")),
    ([{"size": 4}], ("augment.stages[0].until: found None",)),
    ([{"until": 2, "sise": 4}], ("augment.stages[0]: unknown key sise", "did you mean size?")),
    ([{"until": 2, "recipe": "mae"}], ("augment.stages[0]: makes image, expected views",)),
    ([{"until": 2, "bandwidth": 5}], ("augment.stages[0]", "bandwidth: 5, expected an even number up to size=8")),
    ([{"until": 2, "recipe": "none", "bandwidth": 4}], ("augment.stages[0]", "recipe none makes no views")),
    ([{"until": 2, "bandwidth": 10}], ("augment.stages[0]", "bandwidth: 10")),
  ],
)
def test_mistakes_are_named(stages, words):
  with pytest.raises(UserError) as error:
    staged(*stages)
  assert all(word in str(error.value) for word in words), error.value
