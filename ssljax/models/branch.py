"""A branch of a joint-embedding method: encoder, projector and predictor as one function of images."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from ssljax import sharding
from ssljax.types import Array, Params, State


@dataclasses.dataclass(frozen=True)
class Branch:
  """Runs embedding -> projection -> prediction; parameters and batch statistics are trees by the networks' names.

  Attributes:
    encoder: gives "embedding" f32[N,D] of images.
    projector: between embedding and projection; None: there is none.
    predictor: between projection and prediction; None: there is none.
  """

  encoder: nn.Module
  projector: nn.Module | None = None
  predictor: nn.Module | None = None

  @property
  def networks(self) -> dict[str, nn.Module]:
    """The networks there are, by name, in the order they run."""
    fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
    return {name: module for name, module in fields.items() if module is not None}

  def init(self, rng: Array, views: Array) -> tuple[Params, State]:
    """Returns parameters and batch statistics of each network; `views` f32[B,V,H,W,C] gives the shape alone."""
    x: Array = jnp.zeros((2, *views.shape[2:]))
    params: Params = {}
    stats: State = {}
    for key, (name, module) in zip(jax.random.split(rng, len(self.networks)), self.networks.items(), strict=True):
      variables = module.init(key, x)
      params[name], stats[name] = variables["params"], variables.get("batch_stats", {})
      x = jnp.zeros((2, width_of(module)))
    return params, stats

  def __call__(
    self, params: Params, stats: State, images: Array, *, train: bool, keys: Array | None = None
  ) -> tuple[dict[str, Array], State]:
    """Returns what the encoder gives, "projection" f32[N,P], "prediction" f32[N,P], and the next batch statistics.

    Args:
      params, stats: of these networks at least; the statistics returned are of these alone.
      images: f32[N,H,W,C], normalised.
      train: normalise by the batch and move the running statistics; they are the global batch's.
      keys: key[N] of the encoder's stochastic depth, none without.
    """
    found, encoder = run(self.encoder, params["encoder"], stats["encoder"], images, train=train, keys=keys)
    moved = {"encoder": encoder}
    x = found["embedding"]
    for name, output in (("projector", "projection"), ("predictor", "prediction")):
      if name in self.networks:
        x, moved[name] = run(self.networks[name], params[name], stats[name], x, train=train)
        found = found | {output: x}
    return found, moved

  def each_view(
    self, params: Params, stats: State, views: Array, *, keys: Array | None = None
  ) -> tuple[list[dict[str, Array]], State]:
    """Returns what each of the views f32[B,V,H,W,C] gives in training, and the batch statistics after all of them.

    One call a view, so that batch statistics are of the B images of one view, as in references that call their
    network for each. `keys` key[B*V] are of `rng.spread`.
    """
    found = []
    for view in range(views.shape[1]):
      own = None if keys is None else as_views(keys, views.shape[1])[:, view]
      outputs, stats = self(params, stats, sharding.constrain(views[:, view]), train=True, keys=own)
      found.append(outputs)
    return found, stats


def run(module: nn.Module, params: Params, stats: State, x: Array, **keywords: Any) -> tuple[Any, State]:
  """Returns a network's output and its next batch statistics."""
  out, changed = module.apply({"params": params, "batch_stats": stats}, x, mutable=["batch_stats"], **keywords)
  return out, changed.get("batch_stats", stats)


def couples(module: nn.Module) -> bool:
  """Returns whether a network's outputs of one example depend on the others in training: its class says so."""
  return getattr(module, "couples_examples", False)


def width_of(module: nn.Module) -> int:
  """Returns the length of an encoder's embedding (`features`) or of a head's output (`out`)."""
  return module.features if hasattr(module, "features") else module.out


def as_images(views: Array) -> Array:
  """Returns views [B,V,...] as images [B*V,...], the views of one example side by side, laid over the devices."""
  return sharding.constrain(views.reshape(-1, *views.shape[2:]))


def as_views(rows: Array, count: int) -> Array:
  """Returns rows [B*V,...] of `count` views an example as [B,V,...]."""
  return rows.reshape(-1, count, *rows.shape[1:])
