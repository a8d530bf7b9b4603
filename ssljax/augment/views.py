"""The views a method sees of each picture: what `config.augment` builds."""

import dataclasses
from typing import Literal

import flax
import jax
import jax.numpy as jnp

from ssljax import errors
from ssljax.augment import blur, color, crop
from ssljax.augment.normalize import STATISTICS, Statistics, denormalize, normalize
from ssljax.augment.recipes import RECIPES, Recipe, View
from ssljax.precision import Dtype
from ssljax.types import Array, Batch

Name = Literal["none", "mae", "ijepa", "simclr", "simclr_cifar", "moco_v2", "byol", "dino", "swav"]
GLOBAL, LOCAL = range(2)  # which kind of view a key is for; the numbers are part of a run's identity
CROP, FLIP, JITTER, GRAY, BLUR, SIGMA, SOLARIZE = range(7)  # which operation; likewise


@flax.struct.dataclass
class Draw:
  """The random numbers of a view; every leaf has the axes of the keys it was drawn from in front.

  Attributes:
    box: f32[...,4], what is cut (left, top, right, bottom in shares of the canvas); right < left mirrors.
    jitter: the colour jitter.
    gray: bool[...], whether it turns gray.
    blur: bool[...], whether it is blurred.
    sigma: f32[...], by how many pixels.
    solarize: bool[...], whether it is solarised.
  """

  box: Array
  jitter: color.Jitter
  gray: Array
  blur: Array
  sigma: Array
  solarize: Array


def draw_view(key: Array, aspect: Array, view: View) -> Draw:
  """Returns the random numbers of one view of one picture; each operation has a key of its own."""

  def chance(operation: int, probability: Array) -> Array:
    return jax.random.bernoulli(jax.random.fold_in(key, operation), probability)

  box = crop.random_box(jax.random.fold_in(key, CROP), aspect, scale=jnp.asarray(view.crop))
  low, high = blur.SIGMA
  return Draw(
    box=jnp.where(chance(FLIP, view.flip), crop.flip(box), box),
    jitter=color.random_jitter(
      jax.random.fold_in(key, JITTER), strengths=jnp.asarray(view.jitter), probability=view.jitter_probability
    ),
    gray=chance(GRAY, view.gray),
    blur=chance(BLUR, view.blur),
    sigma=jax.random.uniform(jax.random.fold_in(key, SIGMA), minval=low, maxval=high),
    solarize=chance(SOLARIZE, view.solarize),
  )


def draw_views(keys: Array, aspect: Array, views: tuple[View, ...], *, kind: int) -> Draw:
  """Returns the random numbers of V views of each picture, leaves [B,V,...], for keys key[B] and aspect f32[B].

  The key of a view is folded from (example, kind, position among its kind): another view more changes none.
  """
  stacked = jax.tree.map(lambda *values: jnp.array(values), *views)

  def one(key: Array, aspect: Array, number: Array, view: View) -> Draw:
    return draw_view(jax.random.fold_in(jax.random.fold_in(key, kind), number), aspect, view)

  each_view = jax.vmap(one, in_axes=(None, None, 0, 0))
  return jax.vmap(each_view, in_axes=(0, 0, None, None))(keys, aspect, jnp.arange(len(views)), stacked)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Views:
  """Makes the views of a recipe, on the device, inside the compiled step.

  Attributes:
    recipe: whose augmentation: a row of `recipes.RECIPES`. byol is also that of Barlow Twins, VICReg and MoCo v3,
      moco_v2 that of SimSiam; none gives the centre square.
    size: side of a view, pixels.
    local_size: side of a local view, pixels; by default 3/7 of `size` (96 at 224) to the nearest multiple of 8.
    num_local: how many local views; by default the recipe's. 0 leaves them out.
    crop_scale: smallest and largest share of the area of every full-size view; by default the recipe's.
    local_crop_scale: the same for local views.
    strength: factor on the recipe's four jitter strengths (SimCLR's s).
    filter: the interpolation; by default the recipe's.
    normalize: the pixel statistics; by default the recipe's.
    dtype: operands of resampling and blur ("bfloat16": float32 sums, weights rounded to 8 bits).

  Raises:
    UserError: a value out of range or a name that is not in the tables.
  """

  recipe: Name
  size: int
  local_size: int | None = None
  num_local: int | None = None
  crop_scale: tuple[float, float] | None = None
  local_crop_scale: tuple[float, float] | None = None
  strength: float = 1.0
  filter: crop.Filter | None = None
  normalize: Statistics | None = None
  dtype: Dtype = "float32"

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
    _check_scale("crop_scale", self.crop_scale)
    _check_scale("local_crop_scale", self.local_crop_scale)
    if not self._row.local_views and (self.num_local or self.local_size or self.local_crop_scale):
      with_local = ", ".join(name for name, row in RECIPES.items() if row.local_views)
      raise errors.UserError(f"augment: recipe {self.recipe} has no local views (recipes that have: {with_local})")

  @property
  def produces(self) -> tuple[str, ...]:
    """The leaves this adds to the batch: ("image",), ("views",) or ("views", "local_views")."""
    if len(self._views(GLOBAL)) < 2:
      return ("image",)
    return ("views", "local_views") if self._views(LOCAL) else ("views",)

  def __call__(self, keys: Array, batch: Batch) -> dict[str, Array]:
    """Returns the batch with its canvas uint8[B,S,S,3] replaced by what `produces` names.

    One view is `image` f32[B,s,s,3], several are `views` f32[B,V,s,s,3], small ones `local_views`
    f32[B,Vl,s2,s2,3]; all normalised. Every other leaf passes through.

    Args:
      keys: key[B], one per example: an example's key alone decides its views, not its place in the batch.
      batch: `image` uint8[B,S,S,3] and `aspect` f32[B], width / height of the original.
    """
    views, local_views = self._views(GLOBAL), self._views(LOCAL)
    if not views:
      return self.evaluate(batch)
    made = self._make(keys, batch, views, kind=GLOBAL, size=self.size)
    result = _without_canvas(batch) | ({"views": made} if len(views) > 1 else {"image": made[:, 0]})
    if local_views:
      result["local_views"] = self._make(keys, batch, local_views, kind=LOCAL, size=self._local_size)
    return result

  def evaluate(self, batch: Batch) -> dict[str, Array]:
    """Returns the batch with `image` f32[B,s,s,3], the largest centred square of each original, normalised."""
    boxes = crop.center_box(batch["aspect"])[:, None]
    rows = crop.resample(crop.to_rows(batch["image"]), boxes, size=self.size, filter=self._filter, dtype=self.dtype)
    return _without_canvas(batch) | {"image": self._finish(_to_unit(rows[:, 0]))}

  def restore(self, images: Array) -> Array:
    """Returns normalised images f32[...,3] as pictures in [0,1]."""
    return denormalize(images, self._statistics)

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

  def _views(self, kind: int) -> tuple[View, ...]:
    views = (self._row.views, self._row.local_views)[kind]
    if kind == LOCAL and self.num_local is not None:
      views = views[:1] * self.num_local
    scale = (self.crop_scale, self.local_crop_scale)[kind]
    return tuple(
      view.replace(crop=scale or view.crop, jitter=tuple(self.strength * s for s in view.jitter)) for view in views
    )

  def _make(self, keys: Array, batch: Batch, views: tuple[View, ...], *, kind: int, size: int) -> Array:
    draws = draw_views(keys, batch["aspect"], views, kind=kind)
    rows = crop.to_rows(batch["image"])
    rows = _to_unit(crop.resample(rows, draws.box, size=size, filter=self._filter, dtype=self.dtype))
    each = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (rows, draws))
    return self._finish(_paint(*each, views=views, dtype=self.dtype)).reshape(len(keys), len(views), size, size, 3)

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
