"""SimCLR: two views of a picture attract each other, all other views of the batch repel."""

import dataclasses
from typing import Any, ClassVar, final

import jax
import jax.numpy as jnp
from flax import linen as nn

from ssljax import rng as random
from ssljax import sharding
from ssljax.errors import UserError
from ssljax.losses.contrastive import l2_normalize, nt_xent_and_accuracy
from ssljax.losses.pairs import Pairs, check_pairs
from ssljax.models.heads import MLPHead
from ssljax.schedules import Schedule
from ssljax.types import Array, Batch, LossOutput, Objective, Params, State


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class SimCLR(Objective):
  """Encodes both views, projects them and classifies which of the batch's 2B - 1 other views is the partner.

  Batch statistics are those of all 2B views on all devices.

  Attributes:
    encoder: gives "embedding" f32[B,D] of images.
    projector_hidden: width of the projector's hidden layers; None: the width of the embedding.
    projector_out: length of the projection.
    projector_layers: layers of the projector, each with batch normalisation (2 in the first paper, 3 in the second).
    temperature: what the cosines are divided by (0.1 on ImageNet, 0.5 on CIFAR-10).
    pairs: how the logits of all pairs of views are computed: "dense" as one matrix over the devices, "gather" and
      "ring" in blocks, for batches whose matrix does not fit (losses/contrastive.py). The loss is the same.

  Raises:
    UserError: a temperature or size out of range, an unknown way for the pairs; in `init`, a batch without two views
      or of one example.

  Source: Chen, Kornblith, Norouzi, Hinton, "A Simple Framework for Contrastive Learning of Visual Representations",
    2020, arXiv 2002.05709; the projector of Chen et al., "Big Self-Supervised Models are Strong Semi-Supervised
    Learners", 2020, arXiv 2006.10029.
  Differs from the reference: the loss is the paper's, half of the released code's.
  """

  encoder: nn.Module
  projector_hidden: int | None = None
  projector_out: int = 128
  projector_layers: int = 3
  temperature: float | Schedule = 0.1
  pairs: Pairs = "dense"
  batch_keys: ClassVar[tuple[str, ...]] = ("views",)
  couples_examples: ClassVar[bool] = True

  def __post_init__(self):
    check_pairs(self.pairs, where="simclr.SimCLR: pairs")
    if not isinstance(self.temperature, Schedule) and not self.temperature > 0:
      raise UserError(f"simclr.SimCLR: temperature {self.temperature}, expected more than 0")
    for key in ("projector_hidden", "projector_out", "projector_layers"):
      if getattr(self, key) is not None and getattr(self, key) < 1:
        raise UserError(f"simclr.SimCLR: {key} {getattr(self, key)}, expected at least 1")

  @property
  def projector(self) -> MLPHead:
    """The head between the embedding and the loss."""
    return MLPHead(
      hidden=self.projector_hidden,
      out=self.projector_out,
      layers=self.projector_layers,
      last_norm="scale",
      dtype=self.encoder.dtype,
    )

  def init(self, rng: Array, batch: Batch) -> tuple[Params, State]:
    """Returns parameters and batch statistics, each of "encoder" and "projector"."""
    count, views, *shape = batch["views"].shape
    if views != 2:
      raise UserError(f"simclr.SimCLR: found {views} views of an image, expected 2")
    if count < 2:
      raise UserError(f"simclr.SimCLR: found a batch of {count}, expected at least 2: the others are the negatives")
    keys = jax.random.split(rng)
    made = {
      "encoder": self.encoder.init(keys[0], jnp.zeros((2, *shape))),
      "projector": self.projector.init(keys[1], jnp.zeros((2, self.encoder.features))),
    }
    pick = lambda collection: {name: variables.get(collection, {}) for name, variables in made.items()}
    return pick("params"), pick("batch_stats")

  def _project(
    self, params: Params, state: State, images: Array, *, keys: Array | None, train: bool
  ) -> tuple[Array, Array, State]:
    """Returns embedding, projection and the next batch statistics of images f32[N,H,W,C]."""
    encoded, encoder = _apply(self.encoder, params["encoder"], state["encoder"], images, keys=keys, train=train)
    embedding = encoded["embedding"]
    projection, projector = _apply(self.projector, params["projector"], state["projector"], embedding, train=train)
    return embedding, projection, {"encoder": encoder, "projector": projector}

  def loss(self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array) -> LossOutput:
    """Returns `nt_xent` of the two views' projections, how many partners are found, and their mean cosine."""
    views = batch["views"]
    images = sharding.constrain(views.reshape(-1, *views.shape[2:]))
    _, projection, state = self._project(params, state, images, keys=_view_keys(rng, batch["index"]), train=True)
    a, b = jnp.moveaxis(projection.reshape(-1, 2, self.projector_out), 1, 0)
    temperature = Schedule.of(self.temperature)(step)
    loss, accuracy = nt_xent_and_accuracy(a, b, temperature=temperature, pairs=self.pairs)
    cosine = jnp.mean(jnp.sum(l2_normalize(a) * l2_normalize(b), axis=-1))
    metrics = {"contrastive/accuracy": accuracy, "contrastive/positive_cosine": cosine}
    return LossOutput(loss=loss, state=state, metrics=metrics)

  def encode(self, params: Params, state: State, batch: Batch) -> dict[str, Array]:
    """Returns "embedding" f32[B,D] and "projection" f32[B,P], with the running batch statistics."""
    embedding, projection, _ = self._project(params, state, batch["image"], keys=None, train=False)
    return {"embedding": embedding, "projection": projection}


def _apply(module: nn.Module, params: Params, stats: State, x: Array, **keywords: Any) -> tuple[Any, State]:
  """Returns the module's output and its next batch statistics."""
  variables = {"params": params, "batch_stats": stats}
  out, changed = module.apply(variables, x, mutable=["batch_stats"], **keywords)
  return out, changed.get("batch_stats", stats)


def _view_keys(rng: Array, index: Array) -> Array:
  """Returns one key for each view, key[2B]: batch-major, as the views are."""
  keys = random.example_keys(rng, index)
  return jax.vmap(lambda key: jax.random.split(key))(keys).reshape(-1)
