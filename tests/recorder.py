"""An objective from outside the package: MAE that also logs which examples it saw and their pixels' bits."""

import dataclasses

import jax.numpy as jnp

from ssljax import tree
from ssljax.objectives.mae import MAE


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recorder(MAE):
  def loss(self, params, state, batch, *, rng, step):
    out = super().loss(params, state, batch, rng=rng, step=step)
    sums = {"index": tree.fold(batch["index"])[0], "pixels": tree.fold(batch["image"])[0]}
    # A float32 holds 16 bits of a word exactly, not 32.
    exact = {f"record/{name}_{half}": (word >> 16 * half) & 0xFFFF for name, word in sums.items() for half in (0, 1)}
    position = jnp.arange(batch["image"].size).reshape(batch["image"].shape) % 97
    weighted = jnp.mean(batch["image"] * position)
    metrics = out.metrics | {name: word.astype(jnp.float32) for name, word in exact.items()}
    return out.replace(metrics=metrics | {"record/weighted_pixels": weighted})
