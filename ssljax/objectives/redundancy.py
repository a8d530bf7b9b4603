"""What Barlow Twins, VICReg and their like have in common: two views through one encoder and a wide projector."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from flax import linen as nn

from ssljax import rng as random
from ssljax.errors import UserError
from ssljax.models.branch import Branch, as_views
from ssljax.models.heads import MLPHead
from ssljax.types import Array, Batch, Objective, Params, State

VIEWS = 0  # the use of an example's key


@dataclasses.dataclass(frozen=True, kw_only=True)
class _RedundancyReduction(Objective):
  """Two views of a picture and their projections, whose batch statistics are each view's own.

  Attributes:
    encoder: gives "embedding" f32[B,D] of images.
    projector_hidden: width of the projector's hidden layers; None: the width of the embedding.
    projector_out: length of the projection.
    projector_layers: layers of the projector, all but the last with batch normalisation.
  """

  encoder: nn.Module
  projector_hidden: int | None = 8192
  projector_out: int = 8192
  projector_layers: int = 3
  batch_keys: ClassVar[tuple[str, ...]] = ("views",)
  couples_examples: ClassVar[bool] = True

  def __post_init__(self):
    for key in ("projector_hidden", "projector_out", "projector_layers"):
      if getattr(self, key) is not None and getattr(self, key) < 1:
        raise UserError(f"{self._name}: {key} {getattr(self, key)}, expected at least 1")

  @property
  def _name(self) -> str:
    """What the config calls the objective."""
    return f"{type(self).__module__.rpartition('.')[2]}.{type(self).__name__}"

  @property
  def projector(self) -> MLPHead:
    """The head between the embedding and the loss."""
    return MLPHead(
      hidden=self.projector_hidden, out=self.projector_out, layers=self.projector_layers, dtype=self.encoder.dtype
    )

  @property
  def branch(self) -> Branch:
    """What both views go through."""
    return Branch(self.encoder, self.projector)

  def init(self, rng: Array, batch: Batch) -> tuple[Params, State]:
    """Returns parameters and batch statistics, each of "encoder" and "projector"."""
    count, views = batch["views"].shape[:2]
    if views != 2:
      raise UserError(f"{self._name}: found {views} views of an image, expected 2")
    if count < 2:
      raise UserError(f"{self._name}: found a batch of {count}, expected at least 2: one example has no variance")
    return self.branch.init(rng, batch["views"])

  def _run_views(self, params: Params, state: State, batch: Batch, rng: Array) -> tuple[list[dict[str, Array]], State]:
    """Returns what the branch gives of the first and of the second views, and the next state."""
    keys = as_views(random.spread(random.example_keys(rng, batch["index"]), VIEWS, 2), 2)
    found = []
    for view in range(2):
      out, state = self.branch(params, state, batch["views"][:, view], train=True, keys=keys[:, view])
      found.append(out)
    return found, state

  def encode(self, params: Params, state: State, batch: Batch) -> dict[str, Array]:
    """Returns "embedding" f32[B,D] and "projection" f32[B,P], with the running batch statistics."""
    found, _ = self.branch(params, state, batch["image"], train=False)
    return {name: found[name] for name in ("embedding", "projection")}


def deviation(x: Array) -> Array:
  """Returns the mean over the numbers of f32[B,D] of their standard deviation over the batch: 0 where collapsed."""
  return jnp.mean(jnp.std(x, axis=0))
