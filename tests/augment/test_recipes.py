import pytest

from ssljax.augment.recipes import RECIPES

STRONG, MIDDLE, BYOL = (0.8, 0.8, 0.8, 0.2), (0.4, 0.4, 0.4, 0.1), (0.4, 0.4, 0.2, 0.1)
NO = (0.0, 0.0, 0.0, 0.0)

# crop, flip, jitter, its probability, gray, blur, solarize: the papers' and reference codes' numbers
PUBLISHED = {
  "none": [],
  "mae": [((0.2, 1.0), 0.5, NO, 0, 0, 0, 0)],
  "ijepa": [((0.3, 1.0), 0.0, NO, 0, 0, 0, 0)],
  "simclr": [((0.08, 1.0), 0.5, STRONG, 0.8, 0.2, 0.5, 0)] * 2,
  "simclr_cifar": [((0.08, 1.0), 0.5, MIDDLE, 0.8, 0.2, 0, 0)] * 2,
  "moco_v2": [((0.2, 1.0), 0.5, MIDDLE, 0.8, 0.2, 0.5, 0)] * 2,
  "byol": [((0.08, 1.0), 0.5, BYOL, 0.8, 0.2, 1.0, 0), ((0.08, 1.0), 0.5, BYOL, 0.8, 0.2, 0.1, 0.2)],
  "dino": [((0.4, 1.0), 0.5, BYOL, 0.8, 0.2, 1.0, 0), ((0.4, 1.0), 0.5, BYOL, 0.8, 0.2, 0.1, 0.2)],
  "clip": [((0.9, 1.0), 0.0, NO, 0, 0, 0, 0)],
  "obow": [((1.0, 1.0), 0.5, NO, 0, 0, 0, 0), *[((0.08, 0.6), 0.5, MIDDLE, 0.8, 0.2, 0.5, 0)] * 2],
  "slip": [((0.5, 1.0), 0.0, NO, 0, 0, 0, 0), *[((0.08, 1.0), 0.5, MIDDLE, 0.8, 0.2, 0.5, 0)] * 2],
  "swav": [((0.14, 1.0), 0.5, STRONG, 0.8, 0.2, 0.5, 0)] * 2,
}
PUBLISHED_LOCAL = {
  "obow": [((0.084, 0.141), 0.5, MIDDLE, 0.8, 0.2, 0, 0)] * 5,
  "dino": [((0.05, 0.4), 0.5, BYOL, 0.8, 0.2, 0.5, 0)] * 8,
  "swav": [((0.05, 0.14), 0.5, STRONG, 0.8, 0.2, 0.5, 0)] * 6,
}


def numbers(view):
  return (view.crop, view.flip, view.jitter, view.jitter_probability, view.gray, view.blur, view.solarize)


def test_every_recipe_is_checked():
  assert set(RECIPES) == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers(name):
  assert [numbers(view) for view in RECIPES[name].views] == PUBLISHED[name]
  assert [numbers(view) for view in RECIPES[name].local_views] == PUBLISHED_LOCAL.get(name, [])


def test_published_filters_and_statistics():
  assert {name for name, recipe in RECIPES.items() if recipe.filter == "bilinear"} == {
    "ijepa", "moco_v2", "obow", "slip", "swav"
  }  # fmt: skip
  assert {name for name, recipe in RECIPES.items() if recipe.normalize == "none"} == {"simclr", "simclr_cifar"}
  assert {name for name, recipe in RECIPES.items() if recipe.normalize == "clip"} == {"clip"}
  assert {recipe.normalize for recipe in RECIPES.values()} == {"none", "imagenet", "clip"}
