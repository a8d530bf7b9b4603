"""An objective that compiles in no time and, where it is pulled, collapses: its embeddings go to one point."""

import dataclasses

import jax
import jax.numpy as jnp

from ssljax.types import LossOutput, Objective


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collapsing(Objective):
  """Embeds pixels by one matrix, beside a constant; `pull` is the decay of the matrix."""

  pull: float = 1.0
  batch_keys = ("image",)

  def init(self, rng, batch):
    size = batch["image"].shape[1] ** 2 * 3
    return {"w": jax.random.normal(rng, (size, 8)) / size**0.5}, {}

  def loss(self, params, state, batch, *, rng, step):
    size = jnp.sum(jnp.square(params["w"])) / 2
    pixels = jnp.mean(batch["image"][:, 0])
    return LossOutput(loss=self.pull * size, state=state, metrics={"pixels": pixels}, weight=len(batch["image"]))

  def encode(self, params, state, batch):
    x = batch["image"].reshape(len(batch["image"]), -1) @ params["w"]
    return {"embedding": jnp.concatenate([x, jnp.ones((len(x), 1))], axis=1)}
