"""CLIP and SigLIP: an image and its text attract each other, all other images and texts of the batch repel."""

import abc
import dataclasses
import math
from typing import Any, ClassVar, final

import jax.numpy as jnp
from flax import linen as nn

from ssljax import rng as random
from ssljax.errors import UserError
from ssljax.losses.contrastive import l2_normalize, sigmoid_loss, softmax_loss
from ssljax.losses.pairs import Pairs, check_pairs
from ssljax.models.dual import DualEncoder
from ssljax.models.text_tower import check_ids
from ssljax.types import Array, Batch, LossOutput, Objective, Params, Part, State


@dataclasses.dataclass(frozen=True, kw_only=True)
class _ImageText(Objective):
  """What both have: two towers whose parameters are the model's own, and features of unit length.

  The state holds the model's batch statistics; there are none but a ResNet's.
  """

  model: nn.Module
  pairs: Pairs = "dense"
  batch_keys: ClassVar[tuple[str, ...]] = ("image", "text")
  couples_examples: ClassVar[bool] = True

  def _check(self, name: str) -> None:
    if not isinstance(self.model, DualEncoder):
      raise UserError(f"{name}: model {type(self.model).__name__}, expected dual.DualEncoder")
    check_pairs(self.pairs, where=f"{name}: pairs")

  def check_texts(self, *, size: int, end: int, where: str = "objective") -> None:
    """Checks that the text tower reads ids in [0, size) of texts that end with the id `end`; see `check_ids`."""
    check_ids(self.model.text.encoder, size=size, end=end, where=f"{where}.model.text.encoder")

  def _check_scale(self, name: str) -> None:
    if self.model.initial_scale is None:
      raise UserError(f"{name}: model.initial_scale None, expected a number such as 10: the scale is learnt")

  def parts(self) -> dict[str, Part]:
    """Returns "model": parameters and state are its."""
    return {"model": Part(self.model, "", "")}

  def init(self, rng: Array, batch: Batch) -> tuple[Params, State]:
    """Returns the model's parameters and batch statistics."""
    if len(batch["image"]) < 2:
      raise UserError(
        f"image and text: found a batch of {len(batch['image'])}, expected at least 2: the others are the negatives"
      )
    like = lambda key, dtype: jnp.zeros((1, *batch[key].shape[1:]), dtype)
    variables = self.model.init(rng, like("image", jnp.float32), like("text", jnp.int32))
    return variables["params"], variables.get("batch_stats", {})

  def _apply(self, params: Params, state: State, batch: Batch, **keywords: Any) -> tuple[dict[str, Any], State]:
    """Returns what the model gives of what the batch has, and its next batch statistics."""
    variables = {"params": params, "batch_stats": state}
    inputs = (batch.get("image"), batch.get("text"))
    out, changed = self.model.apply(variables, *inputs, mutable=["batch_stats"], **keywords)
    return out, changed.get("batch_stats", state)

  @abc.abstractmethod
  def _loss(self, image: Array, text: Array, scale: Array, bias: Array) -> Array:
    """Returns the loss f32[] of projections f32[B,D], row by row of one example."""

  def loss(self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array) -> LossOutput:
    """Returns the loss of the batch's pairs, the scale, the bias and the mean cosine of images with their texts."""
    return self.loss_and_features(params, state, batch, rng=rng, step=step)[0]

  def loss_and_features(
    self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array
  ) -> tuple[LossOutput, tuple[Array, Array]]:
    """Returns `loss` and the images' and texts' features f32[B,D], of unit length, that it was computed of."""
    del step
    out, state = self._apply(params, state, batch, keys=random.example_keys(rng, batch["index"]), train=True)
    image, text = (l2_normalize(out[key]["projection"]) for key in ("image", "text"))
    metrics = {"contrastive/positive_cosine": jnp.mean(jnp.sum(image * text, axis=-1))}
    if self.model.initial_scale is not None:
      metrics |= {"contrastive/scale": out["scale"], "contrastive/bias": out["bias"]}
    loss = self._loss(image, text, out["scale"], out["bias"])
    return LossOutput(loss=loss, state=state, metrics=metrics), (image, text)

  def encode(self, params: Params, state: State, batch: Batch) -> dict[str, Array]:
    """Returns "embedding" and, of unit length, "image_features" and "text_features", of what the batch has.

    The embedding f32[B,D] is the image tower's before its projection; the text tower's for a batch of texts alone.
    """
    out, _ = self._apply(params, state, batch)
    towers = {key: out[key] for key in ("image", "text") if key in out}
    features = {f"{key}_features": l2_normalize(tower["projection"]) for key, tower in towers.items()}
    return {"embedding": next(iter(towers.values()))["embedding"]} | features


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class CLIP(_ImageText):
  """Classifies which of the batch's texts belongs to an image and which image to a text.

  Locked-image tuning (LiT), here and in SigLIP, is a rule of the config: with
  `init = [("params/image/encoder/", "freeze")]` the image tower stays what `--from` brought in, a run of one's own or
  released weights (`ssljax import`), and its projection and the text tower learn; nothing is computed backwards through
  it. The batch statistics of a ResNet are no parameters and still move. FLIP is the image tower's `patch_dropout`.

  Attributes:
    model: a `dual.DualEncoder` without bias.
    pairs: how the logits of all pairs are computed, as in `simclr.SimCLR`.
    max_scale: most that cosines are multiplied by; the learnt scale is put back between 1 and this after each update.

  Raises:
    UserError: another model or one with a bias, a max_scale below 1, an unknown way for the pairs; in `init`, a batch
      of one example.

  Source: Radford, Kim, Hallacy et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021,
    arXiv 2103.00020; Zhai, Wang, Mustafa et al., "LiT: Zero-Shot Transfer with Locked-image text Tuning", 2021, arXiv
    2111.07991; Li, Fan, Hu et al., "Scaling Language-Image Pre-training via Masking", 2022, arXiv 2212.00794.
  """

  max_scale: float = 100.0

  def __post_init__(self):
    self._check("clip.CLIP")
    self._check_scale("clip.CLIP")
    if self.model.initial_bias is not None:
      raise UserError(f"clip.CLIP: model.initial_bias {self.model.initial_bias}, expected None: softmax cancels it")
    if not self.max_scale >= 1:
      raise UserError(f"clip.CLIP: max_scale {self.max_scale}, expected at least 1")

  def _loss(self, image: Array, text: Array, scale: Array, bias: Array) -> Array:
    del bias
    return softmax_loss(image, text, scale=scale, pairs=self.pairs)

  def post_update(self, params: Params, state: State, *, step: Array) -> tuple[Params, State]:
    """Returns parameters with the scale between 1 and `max_scale`, and the state."""
    del step
    return {**params, "logit_scale": jnp.clip(params["logit_scale"], 0.0, math.log(self.max_scale))}, state


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class SigLIP(_ImageText):
  """Decides of every image and every text of the batch by itself whether they belong together.

  Attributes:
    model: a `dual.DualEncoder` with a bias (initial_scale 10 and initial_bias -10 in the paper).
    pairs: how the logits of all pairs are computed, as in `simclr.SimCLR`.

  Raises:
    UserError: another model or one without bias, an unknown way for the pairs; in `init`, a batch of one example.

  Source: Zhai, Mustafa, Kolesnikov, Beyer, "Sigmoid Loss for Language Image Pre-Training", 2023, arXiv 2303.15343.
  """

  def __post_init__(self):
    self._check("clip.SigLIP")
    self._check_scale("clip.SigLIP")
    if self.model.initial_bias is None:
      raise UserError("clip.SigLIP: model.initial_bias None, expected a number such as -10: most pairs are no pairs")

  def _loss(self, image: Array, text: Array, scale: Array, bias: Array) -> Array:
    return sigmoid_loss(image, text, scale=scale, bias=bias, pairs=self.pairs)
