"""SLIP: image and text, and beside them two more views of the image as in SimCLR, through one image tower."""

import dataclasses
import math
from typing import ClassVar, final

import jax
import jax.numpy as jnp

from ssljax import rng as random
from ssljax.errors import UserError
from ssljax.losses.contrastive import nt_xent_and_accuracy
from ssljax.models.branch import as_images, as_views, run
from ssljax.models.heads import MLPHead
from ssljax.objectives.clip import _ImageText
from ssljax.schedules import Schedule
from ssljax.types import Array, Batch, LossOutput, Objective, Params, Part, State

VIEWS = 3
VIEW_PAIR = 1  # the use of an example's key; the image-text loss has its own


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class SLIP(Objective):
  """Adds to an image-text loss SimCLR's, on the embedding of the image tower before its projection.

      loss = image-text loss of (view 0, text) + weight * NT-Xent of (view 1, view 2)

  The views are those of the recipe "slip": the first is cropped alone, the others are SimCLR's.

  Attributes:
    image_text: the image-text objective: a `clip.CLIP`, `clip.SigLIP` or `convirt.ConVIRT`, with its model.
    weight: of NT-Xent.
    temperature: what its cosines are divided by.
    projector_hidden, projector_out, projector_layers: size of its projector, as in `simclr.SimCLR`.

  Raises:
    UserError: another objective, a number out of range; in `init`, a batch without three views or of one example.

  Source: Mu, Kirillov, Wagner, Xie, "SLIP: Self-supervision meets Language-Image Pre-training", 2021, arXiv
    2112.12750.
  Differs from the reference: its projector normalises both views together, as SimCLR's does.
  """

  image_text: Objective
  weight: float | Schedule = 1.0
  temperature: float = 0.1
  projector_hidden: int | None = 4096
  projector_out: int = 256
  projector_layers: int = 3
  batch_keys: ClassVar[tuple[str, ...]] = ("views", "text")
  couples_examples: ClassVar[bool] = True

  def __post_init__(self):
    if not isinstance(self.image_text, _ImageText):
      raise UserError(f"slip.SLIP: image_text {type(self.image_text).__name__}, expected clip.CLIP or its like")
    if not isinstance(self.weight, Schedule) and not 0 <= self.weight < math.inf:
      raise UserError(f"slip.SLIP: weight {self.weight}, expected a finite number, 0 or more")
    if not self.temperature > 0:
      raise UserError(f"slip.SLIP: temperature {self.temperature}, expected more than 0")
    for key in ("projector_hidden", "projector_out", "projector_layers"):
      if getattr(self, key) is not None and getattr(self, key) < 1:
        raise UserError(f"slip.SLIP: {key} {getattr(self, key)}, expected at least 1")

  @property
  def projector(self) -> MLPHead:
    """The head between the embedding of a view and NT-Xent."""
    return MLPHead(
      hidden=self.projector_hidden,
      out=self.projector_out,
      layers=self.projector_layers,
      last_bias="present",
      dtype=self.image_text.model.image.encoder.dtype,
    )

  def check_texts(self, *, size: int, end: int) -> None:
    """Checks what the image-text objective checks of its texts."""
    self.image_text.check_texts(size=size, end=end, where="objective.image_text")

  def parts(self) -> dict[str, Part]:
    """Returns "model"."""
    return {"model": Part(self.image_text.model, "model", "model")}

  def init(self, rng: Array, batch: Batch) -> tuple[Params, State]:
    """Returns parameters and batch statistics, each of "model" and "projector"."""
    views = batch["views"]
    if views.shape[1] != VIEWS:
      raise UserError(f"slip.SLIP: found {views.shape[1]} views of an image, expected {VIEWS} (recipe slip)")
    keys = jax.random.split(rng)
    like = {"image": jax.ShapeDtypeStruct((len(views), *views.shape[2:]), views.dtype), "text": batch["text"]}
    model, statistics = self.image_text.init(keys[0], like)
    projector = self.projector.init(keys[1], jnp.zeros((2, self.image_text.model.features)))
    state = {"model": statistics, "projector": projector.get("batch_stats", {})}
    return {"model": model, "projector": projector["params"]}, state

  def loss(self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array) -> LossOutput:
    """Returns the sum, with both losses and how many partners are found among the views."""
    views, index = batch["views"], batch["index"]
    pair = {"image": views[:, 0], "text": batch["text"], "index": index}
    out = self.image_text.loss(params["model"], state["model"], pair, rng=rng, step=step)
    keys = random.spread(random.example_keys(rng, index), VIEW_PAIR, 2)
    seen, model = self.image_text._apply(
      params["model"], out.state, {"image": as_images(views[:, 1:])}, keys=keys, train=True
    )
    embedding = seen["image"]["embedding"]
    projection, projector = run(self.projector, params["projector"], state["projector"], embedding, train=True)
    a, b = jnp.moveaxis(as_views(projection, 2), 1, 0)
    nt_xent, accuracy = nt_xent_and_accuracy(a, b, temperature=self.temperature, pairs=self.image_text.pairs)
    metrics = {"slip/image_text": out.loss, "slip/nt_xent": nt_xent, "slip/accuracy": accuracy}
    return LossOutput(
      loss=out.loss + Schedule.of(self.weight)(step) * nt_xent,
      state={"model": model, "projector": projector},
      metrics=out.metrics | metrics,
    )

  def encode(self, params: Params, state: State, batch: Batch) -> dict[str, Array]:
    """Returns what the image-text objective returns."""
    return self.image_text.encode(params["model"], state["model"], batch)

  def post_update(self, params: Params, state: State, *, step: Array) -> tuple[Params, State]:
    """Returns parameters and state after the image-text objective's `post_update`."""
    model, statistics = self.image_text.post_update(params["model"], state["model"], step=step)
    return {**params, "model": model}, {**state, "model": statistics}
