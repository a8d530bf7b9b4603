"""SimCLR: two views of a picture attract each other, all other views of the batch repel."""

import dataclasses
from typing import ClassVar, final

import jax.numpy as jnp
from flax import linen as nn

from ssljax import rng as random
from ssljax.errors import UserError
from ssljax.losses.contrastive import l2_normalize, nt_xent_and_accuracy
from ssljax.losses.pairs import Pairs, check_pairs
from ssljax.models.branch import Branch, as_images, as_views
from ssljax.models.heads import MLPHead
from ssljax.schedules import Schedule
from ssljax.types import Array, Batch, LossOutput, Objective, Params, Part, State

VIEWS = 0  # the use of an example's key


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

  @property
  def branch(self) -> Branch:
    """What both views go through."""
    return Branch(self.encoder, self.projector)

  def parts(self) -> dict[str, Part]:
    """Returns "encoder" and "projector", whose first layer the second paper fine-tunes too."""
    return {name: Part(module, name, name) for name, module in self.branch.networks.items()}

  def init(self, rng: Array, batch: Batch) -> tuple[Params, State]:
    """Returns parameters and batch statistics, each of "encoder" and "projector"."""
    count, views = batch["views"].shape[:2]
    if views != 2:
      raise UserError(f"simclr.SimCLR: found {views} views of an image, expected 2")
    if count < 2:
      raise UserError(f"simclr.SimCLR: found a batch of {count}, expected at least 2: the others are the negatives")
    return self.branch.init(rng, batch["views"])

  def loss(self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array) -> LossOutput:
    """Returns `nt_xent` of the two views' projections, how many partners are found, and their mean cosine."""
    keys = random.spread(random.example_keys(rng, batch["index"]), VIEWS, 2)
    found, state = self.branch(params, state, as_images(batch["views"]), train=True, keys=keys)
    a, b = jnp.moveaxis(as_views(found["projection"], 2), 1, 0)
    temperature = Schedule.of(self.temperature)(step)
    loss, accuracy = nt_xent_and_accuracy(a, b, temperature=temperature, pairs=self.pairs)
    cosine = jnp.mean(jnp.sum(l2_normalize(a) * l2_normalize(b), axis=-1))
    metrics = {"contrastive/accuracy": accuracy, "contrastive/positive_cosine": cosine}
    return LossOutput(loss=loss, state=state, metrics=metrics)

  def encode(self, params: Params, state: State, batch: Batch) -> dict[str, Array]:
    """Returns "embedding" f32[B,D], "projection" f32[B,P] and "hidden" f32[B,H], with the running batch statistics.

    "hidden" is what the projector's first layer gives, from which the second paper fine-tunes; none without one.
    """
    found, _ = self.branch(params, state, batch["image"], train=False)
    found = {name: found[name] for name in ("embedding", "projection")}
    if self.projector_layers == 1:
      return found
    variables = {"params": params["projector"], "batch_stats": state["projector"]}
    return found | {"hidden": self.projector.apply(variables, found["embedding"], stop=1)}
