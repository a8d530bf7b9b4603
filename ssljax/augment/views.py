"""The views a method sees of each picture: what `config.augment` builds."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from ssljax import errors
from ssljax.augment import blur, chunks, color, crop, frequency
from ssljax.augment.draw import GLOBAL, LOCAL, Draw, draw_views, numbers
from ssljax.augment.normalize import STATISTICS, Statistics, denormalize, normalize
from ssljax.augment.recipes import RECIPES, Recipe, View
from ssljax.precision import Dtype
from ssljax.types import Array, Batch

Name = Literal[
  "none", "mae", "ijepa", "simclr", "simclr_cifar", "moco_v2", "byol", "dino", "obow", "clip", "slip", "swav"
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Views:
  """Makes the views of a recipe, on the device, inside the compiled step.

  Attributes:
    recipe: whose augmentation: a row of `recipes.RECIPES`. byol is also that of Barlow Twins, VICReg and MoCo v3,
      moco_v2 that of SimSiam; clip has no mirror images, for pictures with texts; none gives the centre square.
    size: side of a view, pixels.
    local_size: side of a local view, pixels; by default 3/7 of `size` (96 at 224) to the nearest multiple of 8.
    num_local: how many local views; by default the recipe's. 0 leaves them out.
    crop_scale: smallest and largest share of the area of every full-size view; by default the recipe's.
    local_crop_scale: the same for local views.
    flip: probability of a mirror image, of every view; by default the recipe's. 0 where texts say left and right.
    strength: factor on the recipe's four jitter strengths (SimCLR's s).
    filter: the interpolation; by default the recipe's.
    normalize: the pixel statistics; by default the recipe's.
    bandwidth: side of the full-size views that the model gets, pixels: their low frequencies alone, as in
      `frequency.low_frequencies`; by default `size`, which leaves them as they are. Evaluation is not touched.
    dtype: operands of resampling and blur ("bfloat16": float32 sums, weights rounded to 8 bits).
    tell: "transforms": the batch says how each full-size view was made (`transforms` f32[B,V,T], see `view_numbers`);
      "nothing": it does not.

  Raises:
    UserError: a value out of range or a name that is not in the tables.
  """

  recipe: Name
  size: int
  local_size: int | None = None
  num_local: int | None = None
  crop_scale: tuple[float, float] | None = None
  local_crop_scale: tuple[float, float] | None = None
  flip: float | None = None
  strength: float = 1.0
  filter: crop.Filter | None = None
  normalize: Statistics | None = None
  bandwidth: int | None = None
  dtype: Dtype = "float32"
  tell: Literal["nothing", "transforms"] = "nothing"

  def __post_init__(self) -> None:
    _check_name("recipe", self.recipe, RECIPES)
    if self.filter is not None:
      _check_name("filter", self.filter, crop.KERNELS)
    if self.normalize is not None:
      _check_name("normalize", self.normalize, STATISTICS)
    _check_at_least("size", self.size, 1)
    _check_at_least("local_size", self.local_size, 1)
    _check_at_least("num_local", self.num_local, 0)
    _check_at_least("strength", self.strength, 0)
    if self.flip is not None and not 0 <= self.flip <= 1:
      raise errors.UserError(f"augment.flip: {self.flip}, expected a probability, from 0 to 1")
    if self.bandwidth is not None and (self.bandwidth % 2 or not 2 <= self.bandwidth <= self.size):
      raise errors.UserError(f"augment.bandwidth: {self.bandwidth}, expected an even number up to size={self.size}")
    if self.bandwidth is not None and not self._row.views:
      raise errors.UserError(f"augment.bandwidth: {self.bandwidth}, expected none: recipe {self.recipe} makes no views")
    _check_scale("crop_scale", self.crop_scale)
    _check_scale("local_crop_scale", self.local_crop_scale)
    _check_name("tell", self.tell, dict.fromkeys(("nothing", "transforms")))
    if self.tell == "transforms" and not self._row.views:
      raise errors.UserError(f"augment.tell: found transforms, expected nothing: recipe {self.recipe} draws no views")
    if not self._row.local_views and (self.num_local or self.local_size or self.local_crop_scale):
      with_local = ", ".join(name for name, row in RECIPES.items() if row.local_views)
      raise errors.UserError(f"augment: recipe {self.recipe} has no local views (recipes that have: {with_local})")

  @property
  def produces(self) -> tuple[str, ...]:
    """The pictures this adds to the batch: ("image",), ("views",) or ("views", "local_views")."""
    if len(self._row.views) < 2:
      return ("image",)
    return ("views", "local_views") if self._local_views else ("views",)

  def __call__(self, keys: Array, batch: Batch) -> dict[str, Array]:
    """Returns the batch with its canvas uint8[B,S,S,3] replaced by what `produces` names.

    One view is `image` f32[B,s,s,3], several are `views` f32[B,V,s,s,3], small ones `local_views`
    f32[B,Vl,s2,s2,3]; all normalised; s is the bandwidth. `tell` adds `transforms`. Every other leaf passes through.

    Args:
      keys: key[B], one per example: an example's key alone decides its views, not its place in the batch.
      batch: `image` uint8[B,S,S,3] and `aspect` f32[B], width / height of the original.
    """
    if not self._row.views:
      return self.evaluate(batch)
    draws = draw_views(keys, batch["aspect"], self._views, first=GLOBAL)
    views = self._make(batch["image"], draws, self._views, size=self.size, bandwidth=self.bandwidth)
    result = _without_canvas(batch) | ({"image": views[:, 0]} if len(self._views) == 1 else {"views": views})
    if self.tell == "transforms":
      result["transforms"] = numbers(draws)
    if self._local_views:
      draws = draw_views(keys, batch["aspect"], self._local_views, first=LOCAL)
      result["local_views"] = self._make(batch["image"], draws, self._local_views, size=self._local_size)
    return result

  def evaluate(self, batch: Batch) -> dict[str, Array]:
    """Returns the batch with `image` f32[B,s,s,3], the largest centred square of each original, normalised."""
    boxes = crop.center_box(batch["aspect"])[:, None]
    rows = crop.resample(batch["image"], boxes, size=self.size, filter=self._filter, dtype=self.dtype)
    return _without_canvas(batch) | {"image": self._finish(_to_unit(rows[:, 0]))}

  def restore(self, images: Array) -> Array:
    """Returns normalised images f32[...,3] as pictures in [0,1]."""
    return denormalize(images, self._statistics)

  @property
  def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the channels that pictures are normalised by, of values in [0, 1]."""
    return STATISTICS[self._statistics]

  @property
  def interpolation(self) -> crop.Filter:
    """The name of the filter that resizes."""
    return self._filter

  @property
  def _row(self) -> Recipe:
    return RECIPES[self.recipe]

  @property
  def _filter(self) -> crop.Filter:
    return self.filter or self._row.filter

  @property
  def _statistics(self) -> Statistics:
    return self.normalize or self._row.normalize

  @property
  def _local_size(self) -> int:
    return self.local_size or max(8, round(self.size * 3 / 7 / 8) * 8)

  @property
  def _views(self) -> tuple[View, ...]:
    return self._adjust(self._row.views, self.crop_scale)

  @property
  def _local_views(self) -> tuple[View, ...]:
    views = self._row.local_views
    return self._adjust(views if self.num_local is None else views[:1] * self.num_local, self.local_crop_scale)

  def _adjust(self, views: tuple[View, ...], scale: tuple[float, float] | None) -> tuple[View, ...]:
    jitter = lambda view: tuple(self.strength * s for s in view.jitter)
    flip = lambda view: view.flip if self.flip is None else self.flip
    return tuple(view.replace(crop=tuple(scale or view.crop), flip=flip(view), jitter=jitter(view)) for view in views)

  def _make(
    self, images: Array, draws: Draw, views: tuple[View, ...], *, size: int, bandwidth: int | None = None
  ) -> Array:
    side = bandwidth or size

    def render(images: Array, draws: Draw) -> Array:
      rows = crop.resample(images, draws.box, size=size, filter=self._filter, dtype=self.dtype)
      each = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (_to_unit(rows), draws))
      rows = _paint(*each, views=views, dtype=self.dtype)
      if side < size:
        rows = frequency.low_frequencies(rows, size=side, dtype=self.dtype)
      return self._finish(rows).reshape(len(images), len(views), side, side, 3)

    return chunks.map_chunks(render, images, draws, example_bytes=len(views) * size * size * 3 * 4)

  def _finish(self, rows: Array) -> Array:
    return normalize(jnp.swapaxes(rows, -1, -2), self._statistics)


def _paint(rows: Array, draws: Draw, *, views: tuple[View, ...], dtype: Dtype) -> Array:
  """Returns the colours changed and the pictures blurred; what no view wants is not compiled."""
  if any(view.jitter_probability for view in views):
    rows = color.jitter(rows, draws.jitter)
  if any(view.gray for view in views):
    rows = color.grayscale(rows, draws.gray)
  if any(view.blur for view in views):
    rows = blur.gaussian_blur(rows, draws.sigma, draws.blur, dtype=dtype)
  if any(view.solarize for view in views):
    rows = color.solarize(rows, draws.solarize)
  return rows


def _to_unit(rows: Array) -> Array:
  return jnp.clip(rows * (1 / 255), 0, 1)


def _without_canvas(batch: Batch) -> dict[str, Array]:
  return {name: leaf for name, leaf in batch.items() if name != "image"}


def _check_name(key: str, found: str, valid: dict) -> None:
  if found not in valid:
    raise errors.UserError(f"augment.{key}: {errors.nearest(str(found), valid)}")


def _check_at_least(key: str, found: float | None, least: int) -> None:
  if found is not None and found < least:
    raise errors.UserError(f"augment.{key}: {found}, expected at least {least}")


def _check_scale(key: str, found: tuple[float, float] | None) -> None:
  if found is not None and not (len(found) == 2 and 0 < found[0] <= found[1] <= 1):
    raise errors.UserError(f"augment.{key}: {found}, expected (smallest, largest) with 0 < smallest <= largest <= 1")
