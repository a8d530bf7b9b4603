"""Multi-crop: views of several resolutions through one encoder, each resolution in a call of its own."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn

from ssljax import rng as random
from ssljax.errors import UserError
from ssljax.models.branch import as_images, as_views, run
from ssljax.types import Array, Params, State


def embed_crops(
  encoder: nn.Module, params: Params, stats: State, crops: Sequence[Array], *, keys: Array | None = None
) -> tuple[Array, State]:
  """Returns embeddings f32[B,V,D] of all crops, in their order, and the encoder's next batch statistics.

  Crops of one resolution are normalised together, those of another apart, as in the released codes.

  Args:
    encoder: gives "embedding" of images.
    params, stats: its parameters and batch statistics.
    crops: f32[B,Vi,h,w,C] of each resolution; the Vi add up to V.
    keys: key[B], the examples' keys for stochastic depth; None for none.
  """
  found = []
  for use, views in enumerate(crops):
    count = views.shape[1]
    each = None if keys is None else random.spread(keys, use, count)
    out, stats = run(encoder, params, stats, as_images(views), train=True, keys=each)
    found.append(as_views(out["embedding"], count))
  return jnp.concatenate(found, axis=1), stats


def check_crops(encoder: nn.Module, crops: Sequence[Array], *, where: str) -> None:
  """Checks that the encoder can see the crops f32[B,Vi,h,w,C] of each resolution, the largest first.

  Args:
    where: the objective, for messages.

  Raises:
    UserError: a view too few, a batch of one example, a local view that is larger than a view, that is no whole number
      of patches, or whose places a learnt table of positions does not have.
  """
  views, sides = crops[0], [crop.shape[2] for crop in crops]
  if views.shape[1] < 2:
    raise UserError(f"{where}: found {views.shape[1]} views of an image, expected 2 or more")
  if len(views) < 2:
    raise UserError(f"{where}: found a batch of {len(views)}, expected at least 2")
  patch = getattr(encoder, "patch", 1)
  for side in sides[1:]:
    if side > sides[0]:
      raise UserError(f"{where}: local views of {side} pixels, expected at most {sides[0]}, the side of a view")
    if side % patch:
      raise UserError(
        f"{where}: local views of {side} pixels, expected a multiple of patch={patch} (augment.local_size)"
      )
    if side != sides[0] and getattr(encoder, "positions", "sincos") == "learnt":
      raise UserError(f"{where}: local views of {side} pixels, expected encoder.positions sincos, which fit any size")
