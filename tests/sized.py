"""An objective of pictures of any size that logs how large they were, and a model that takes some sizes only."""

import dataclasses

import jax.numpy as jnp

from ssljax.models.patches import patchify
from ssljax.types import LossOutput, Objective


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sized(Objective):
  """Fits one number a channel to the mean colour; sides must be a multiple of `patch`."""

  patch: int = 1
  batch_keys = ("image",)

  def init(self, rng, batch):
    return {"w": jnp.ones(3)}, {}

  def loss(self, params, state, batch, *, rng, step):
    colour = jnp.mean(patchify(batch["image"], patch=self.patch), axis=1).reshape(len(batch["image"]), -1, 3).mean(1)
    loss = jnp.mean(jnp.square(colour @ params["w"] - 1))
    return LossOutput(
      loss=loss, state=state, metrics={"side": jnp.float32(batch["image"].shape[1])}, weight=len(colour)
    )

  def encode(self, params, state, batch):
    return {"embedding": batch["image"].mean((1, 2)) * params["w"]}
