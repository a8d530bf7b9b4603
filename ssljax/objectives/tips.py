"""TIPS: image and text, self-distillation and masked image modelling on one image encoder."""

import dataclasses
import math
from typing import Any, Literal, final

import jax
import jax.numpy as jnp
from flax import linen as nn

from ssljax import rng as random
from ssljax import sharding, tree
from ssljax.errors import UserError, nearest
from ssljax.losses.contrastive import l2_normalize, softmax_loss
from ssljax.losses.pairs import Pairs, check_pairs
from ssljax.losses.self_distillation import centred_softmax, dino_loss, ibot_loss, moved_center
from ssljax.models.dino_head import DINOHead
from ssljax.models.dual import Tower
from ssljax.models.patches import grid_shape, random_mask
from ssljax.models.text_tower import check_ids
from ssljax.models.vit import ViT
from ssljax.schedules import Schedule
from ssljax.types import Array, Batch, LossOutput, Objective, Params, Part, State

STUDENT = ("encoder", "cls_head", "patch_head")  # what there is a teacher of
MASKS, GLOBAL, LOCAL, CLEAN = range(4)  # uses of an example's key


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class TIPS(Objective):
  """Pairs images with texts, and holds crops and hidden patches to what the encoder's moving average sees.

      loss = 1/2 (softmax loss of cls and web caption + of register and synthetic caption)
             + distillation * DINO loss of the student's crops + patches * iBOT loss of its hidden patches

  The encoder has two tokens for the whole image, its cls token for captions found with it and its first register for
  those a model wrote. The student sees the first global view whole (for the texts), every global view with patches
  hidden, and the local views; the teacher every global view. Two heads give scores over prototypes, of the cls token
  and of patches.

  Attributes:
    encoder: a `vit.ViT` with one register or more, a mask token and sincos positions.
    text: a `dual.Tower` whose projections are as long as the encoder's embedding.
    captions: "one": `text` int32[B,L] goes with both tokens; "two": `texts` int32[B,2,L], web and synthetic.
    pairs: how the logits of image-text pairs are computed, as in `simclr.SimCLR`.
    initial_scale, max_scale: what cosines of pairs are multiplied by at the start and at most; its logarithm is learnt.
    distillation, patches: weights of the two.
    prototypes, head_hidden, head_bottleneck: size of both heads, as in `dino_head.DINOHead`.
    student_temperature, teacher_temperature: what scores are divided by.
    decay: of the teacher.
    center_decay: of the mean that is taken off the teacher's scores.
    mask_share: smallest and largest share of a view's patches that are hidden, drawn for each view.

  Raises:
    UserError: networks that do not fit, a number out of range; in `init`, a batch of one example.

  Source: Maninis, Chen, Ghosh et al., "TIPS: Text-Image Pretraining with Spatial awareness", 2024, arXiv 2410.16512;
    the two losses of Caron et al., 2021, arXiv 2104.14294, and Zhou et al., 2021, arXiv 2111.07832.
  Differs from the reference: its training code is not released, so weights and temperatures are DINO's and iBOT's, not
    the paper's. Hidden patches are drawn one by one, not in blocks.
  """

  encoder: nn.Module
  text: nn.Module
  captions: Literal["one", "two"] = "one"
  pairs: Pairs = "dense"
  initial_scale: float = 1 / 0.07
  max_scale: float = 100.0
  distillation: float | Schedule = 1.0
  patches: float | Schedule = 1.0
  prototypes: int = 65536
  head_hidden: int = 2048
  head_bottleneck: int = 256
  student_temperature: float = 0.1
  teacher_temperature: float | Schedule = 0.04
  decay: float | Schedule = 0.996
  center_decay: float = 0.9
  mask_share: tuple[float, float] = (0.1, 0.5)

  couples_examples = True

  def __post_init__(self):
    _check_networks(self.encoder, self.text)
    check_pairs(self.pairs, where="tips.TIPS: pairs")
    if self.captions not in ("one", "two"):
      raise UserError(f"tips.TIPS: captions {nearest(str(self.captions), ('one', 'two'))}")
    low, high = self.mask_share
    if not 0 < low <= high < 1:
      raise UserError(f"tips.TIPS: mask_share {low} to {high}, expected shares above 0 and below 1")
    if not 1 <= self.initial_scale <= self.max_scale:
      raise UserError(f"tips.TIPS: initial_scale {self.initial_scale}, expected from 1 to max_scale={self.max_scale}")
    for key in ("prototypes", "head_hidden", "head_bottleneck"):
      if getattr(self, key) < 1:
        raise UserError(f"tips.TIPS: {key} {getattr(self, key)}, expected at least 1")
    for key in ("student_temperature", "teacher_temperature"):
      if not isinstance(getattr(self, key), Schedule) and not getattr(self, key) > 0:
        raise UserError(f"tips.TIPS: {key} {getattr(self, key)}, expected more than 0")

  @property
  def batch_keys(self) -> tuple[str, ...]:  # type: ignore[override]
    """Keys of the batch that `loss` reads; `captions` says which texts."""
    return ("views", "local_views", "text" if self.captions == "one" else "texts")

  @property
  def head(self) -> DINOHead:
    """What gives scores over prototypes; there is one of cls tokens and one of patches."""
    return DINOHead(self.prototypes, self.head_hidden, self.head_bottleneck, dtype=self.encoder.dtype)

  def check_texts(self, *, size: int, end: int) -> None:
    """Checks that the text tower reads ids in [0, size) of texts that end with the id `end`; see `check_ids`."""
    check_ids(self.text.encoder, size=size, end=end, where="objective.text.encoder")

  def parts(self) -> dict[str, Part]:
    """Returns "encoder" and "text"."""
    return {"encoder": Part(self.encoder, "encoder", None), "text": Part(self.text, "text", None)}

  def init(self, rng: Array, batch: Batch) -> tuple[Params, State]:
    """Returns the student's parameters, the text tower's and the scale; and the teacher with two centres."""
    if len(batch["views"]) < 2:
      raise UserError(f"tips.TIPS: found a batch of {len(batch['views'])}, expected at least 2")
    text = batch[self.batch_keys[-1]]
    keys = jax.random.split(rng, 4)
    features = jnp.zeros((1, self.encoder.features))
    params = {
      "encoder": self.encoder.init(keys[0], jnp.zeros((1, *batch["views"].shape[2:])))["params"],
      "cls_head": self.head.init(keys[1], features)["params"],
      "patch_head": self.head.init(keys[2], features)["params"],
      "text": self.text.init(keys[3], jnp.zeros((1, text.shape[-1]), jnp.int32))["params"],
      "logit_scale": jnp.float32(math.log(self.initial_scale)),
    }
    centers = {f"{name}_center": jnp.zeros(self.prototypes) for name in ("cls", "patch")}
    return params, {"teacher": jax.tree.map(jnp.array, {name: params[name] for name in STUDENT}), **centers}

  def loss(self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array) -> LossOutput:
    """Returns the sum, its parts and the mean entropy of the teacher's cls probabilities, in nats."""
    keys = random.example_keys(rng, batch["index"])
    views = batch["views"]
    mask = self._mask(views, keys)
    contrast, metrics = self._contrast(params, batch, keys)
    student_cls, student_patches = self._scores(
      params, views, mask=mask, keys=random.spread(keys, GLOBAL, views.shape[1])
    )
    local = batch["local_views"]
    local_cls, _ = self._scores(params, local, keys=random.spread(keys, LOCAL, local.shape[1]), patches=False)
    teacher_cls, teacher_patches = self._scores(jax.lax.stop_gradient(state["teacher"]), views)
    temperature = Schedule.of(self.teacher_temperature)(step)
    targets = centred_softmax(teacher_cls, state["cls_center"], temperature=temperature)
    patch_targets = centred_softmax(teacher_patches, state["patch_center"], temperature=temperature)
    crops = jnp.concatenate([student_cls, local_cls], axis=1)
    dino = dino_loss(crops, targets, temperature=self.student_temperature)
    ibot = ibot_loss(student_patches, patch_targets, mask, temperature=self.student_temperature)
    centers = {
      "cls_center": moved_center(state["cls_center"], teacher_cls, decay=self.center_decay),
      "patch_center": moved_center(state["patch_center"], teacher_patches, decay=self.center_decay),
    }
    entropy = -jnp.mean(jnp.sum(jax.scipy.special.xlogy(targets, targets), axis=-1))
    metrics |= {"tips/image_text": contrast, "tips/distillation": dino, "tips/patches": ibot, "tips/entropy": entropy}
    total = contrast + Schedule.of(self.distillation)(step) * dino + Schedule.of(self.patches)(step) * ibot
    return LossOutput(loss=total, state={**state, **centers}, metrics=metrics)

  def _mask(self, views: Array, keys: Array) -> Array:
    """Returns which patches of views f32[B,V,H,W,C] are hidden, bool[B,V,N]."""
    rows, columns = grid_shape(*views.shape[2:4], patch=self.encoder.patch)
    mask = random_mask(random.spread(keys, MASKS, views.shape[1]), count=rows * columns, share=self.mask_share)
    return mask.reshape(*views.shape[:2], -1)

  def _encode(self, params: Params, views: Array, **options: Any) -> dict[str, Array]:
    return self.encoder.apply({"params": params["encoder"]}, sharding.constrain(views), **options)

  def _scores(
    self, params: Params, views: Array, *, mask: Array | None = None, keys: Array | None = None, patches: bool = True
  ) -> tuple[Array, Array | None]:
    """Returns scores f32[B,V,K] of the cls tokens of views f32[B,V,H,W,C], and f32[B,V,N,K] of their patches."""
    flat = lambda x: None if x is None else x.reshape(-1, *x.shape[2:])
    found = self._encode(params, flat(views), mask=flat(mask), keys=keys)
    score = lambda name, x: self.head.apply({"params": params[name]}, x).reshape(*views.shape[:2], *x.shape[1:-1], -1)
    return score("cls_head", found["cls"]), score("patch_head", found["tokens"]) if patches else None

  def _contrast(self, params: Params, batch: Batch, keys: Array) -> tuple[Array, dict[str, Array]]:
    """Returns the mean softmax loss of both tokens of the first view, and metrics."""
    found = self._encode(params, batch["views"][:, 0], keys=random.spread(keys, CLEAN, 1))
    images = [found["cls"], found["registers"][:, 0]]
    texts = self._texts(params, batch, keys)
    scale = jnp.exp(params["logit_scale"])
    losses = [softmax_loss(x, y, scale=scale, pairs=self.pairs) for x, y in zip(images, texts, strict=True)]
    cosine = jnp.mean(jnp.sum(l2_normalize(images[0]) * l2_normalize(texts[0]), axis=-1))
    return 0.5 * (losses[0] + losses[1]), {"contrastive/scale": scale, "contrastive/positive_cosine": cosine}

  def _texts(self, params: Params, batch: Batch, keys: Array) -> list[Array]:
    """Returns projections f32[B,D] of the captions for the cls token and for the register."""
    project = lambda tokens, keys: self.text.apply({"params": params["text"]}, tokens, keys=keys)["projection"]
    if self.captions == "one":
      return [project(batch["text"], keys)] * 2
    texts = batch["texts"]
    both = project(texts.reshape(-1, texts.shape[-1]), random.spread(keys, CLEAN, 2)).reshape(len(texts), 2, -1)
    return [both[:, 0], both[:, 1]]

  def encode(self, params: Params, state: State, batch: Batch) -> dict[str, Array]:
    """Returns "embedding" (the cls token) and, of unit length, features of what the batch has, all f32[B,D].

    "image_features" are of the cls token, "synthetic_features" of the register, "text_features" of the texts.
    """
    del state
    found: dict[str, Array] = {}
    if "image" in batch:
      image = self._encode(params, batch["image"])
      found = {"embedding": image["cls"], "image_features": l2_normalize(image["cls"])}
      found["synthetic_features"] = l2_normalize(image["registers"][:, 0])
    if "text" in batch:
      text = self.text.apply({"params": params["text"]}, batch["text"])
      found = {"embedding": text["embedding"]} | found | {"text_features": l2_normalize(text["projection"])}
    return found

  def post_update(self, params: Params, state: State, *, step: Array) -> tuple[Params, State]:
    """Returns parameters with the scale between 1 and `max_scale`, and the state with the teacher moved."""
    student = {name: params[name] for name in STUDENT}
    teacher = tree.moved(state["teacher"], student, decay=Schedule.of(self.decay)(step))
    scale = jnp.clip(params["logit_scale"], 0.0, math.log(self.max_scale))
    return {**params, "logit_scale": scale}, {**state, "teacher": teacher}

  def imported(self, params: Params, state: State) -> State:
    """Returns the state with the teacher a copy of the student that came in."""
    return {**state, "teacher": jax.tree.map(jnp.array, {name: params[name] for name in STUDENT})}


def _check_networks(encoder: nn.Module, text: nn.Module) -> None:
  if not isinstance(encoder, ViT):
    raise UserError(f"tips.TIPS: encoder {type(encoder).__name__}, expected vit.ViT")
  if not isinstance(text, Tower):
    raise UserError(f"tips.TIPS: text {type(text).__name__}, expected dual.Tower")
  if encoder.registers < 1:
    raise UserError("tips.TIPS: encoder.registers 0, expected 1 or more: the token of synthetic captions")
  for key, value in {"mask_token": "learnt", "cls_token": "learnt", "positions": "sincos"}.items():
    if getattr(encoder, key) != value:
      raise UserError(f"tips.TIPS: encoder.{key} {getattr(encoder, key)}, expected {value}")
  if text.features != encoder.features:
    raise UserError(f"tips.TIPS: texts projected to {text.features} numbers, expected {encoder.features} (text.width)")
