"""An objective in one file outside the package, as docs/add_an_objective.md shows it."""

import dataclasses
from typing import ClassVar, final

import jax.numpy as jnp
from flax import linen as nn

from ssljax.types import Array, Batch, LossOutput, Objective, Params, State


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Toy(Objective):
  """Predicts the mean colour of a picture from its embedding."""

  encoder: nn.Module
  weight: float = 1.0
  batch_keys: ClassVar[tuple[str, ...]] = ("image",)

  def init(self, rng: Array, batch: Batch) -> tuple[Params, State]:
    encoder = self.encoder.init(rng, jnp.zeros((1, *batch["image"].shape[1:])))["params"]
    return {"encoder": encoder, "head": jnp.zeros((self.encoder.features, 3))}, {}

  def loss(self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array) -> LossOutput:
    predicted = self.encode(params, state, batch)["embedding"] @ params["head"]
    error = jnp.mean((predicted - batch["image"].mean((1, 2))) ** 2)
    return LossOutput(loss=self.weight * error, state=state, metrics={"toy/error": error}, weight=len(predicted))

  def encode(self, params: Params, state: State, batch: Batch) -> dict[str, Array]:
    return {"embedding": self.encoder.apply({"params": params["encoder"]}, batch["image"])["embedding"]}
