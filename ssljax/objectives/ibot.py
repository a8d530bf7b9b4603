"""iBOT and DINOv2: DINO, and hidden patches that are to look as the teacher sees them."""

import dataclasses
import functools
import math
from typing import Any, Literal, final

import jax
import jax.numpy as jnp

from ssljax import rng as random
from ssljax import sharding
from ssljax.errors import UserError, nearest
from ssljax.losses.clustering import koleo
from ssljax.losses.self_distillation import dino_loss, entropy, ibot_loss
from ssljax.models.block_masks import Draw, block_masks, hidden_places, hidden_shares
from ssljax.models.branch import as_images, as_views
from ssljax.models.dino_head import DINOHead
from ssljax.models.patches import grid_shape
from ssljax.models.vit import ViT
from ssljax.objectives.self_distilled import _SelfDistilled
from ssljax.schedules import Schedule
from ssljax.types import Array, Batch, LossOutput, Params, State

GLOBAL, LOCAL, SHARES, BLOCKS = range(4)  # uses of an example's key
CHOICES = {"heads": ("shared", "separate"), "masks": ("independent", "stratified")}


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class iBOT(_SelfDistilled):
  """Adds to DINO's loss of cls tokens one of hidden patches, between student and teacher in the same view.

      loss = DINO's + patches * mean over images and views of the mean over hidden patches of
                      -sum_k p_k log softmax(student(patch) / student_temperature)_k
             + koleo * sum over views of `clustering.koleo` of the student's cls tokens

  The student sees views with blocks of patches hidden, the teacher sees them whole. DINOv2 is

      iBOT(heads="separate", prototypes=131072, masks="stratified", smallest_block=4, koleo=0.1, centering="sinkhorn")

  with layer scales in the encoder. As in DINO, prototypes stand still in the first epoch (`optimizer.hold`).

  Attributes:
    encoder: a `vit.ViT` with cls token, mask token and, for local views, sincos positions.
    heads: "shared": one for cls tokens and patches (iBOT); "separate": one for each (DINOv2).
    patch_prototypes: prototypes of patches, where heads are separate; None: as many as of cls tokens.
    patch_teacher_temperature: of patches; None: as of cls tokens.
    patches, koleo: weights.
    masks: how it is drawn which share of a view is hidden, as in `block_masks.hidden_shares`.
    mask_share: smallest and largest share of a view's patches that are hidden, where some are.
    mask_probability: share of the views of which some are.
    smallest_block: least area of a block, patches; None: a ninth of the grid (iBOT; DINOv2 has 4).
    crops, prototypes, head_hidden, head_bottleneck, head_layers, student_temperature, teacher_temperature, decay,
    centering, center_decay, sinkhorn_iterations: as in `dino.DINO`.

  Raises:
    UserError: an encoder without what is needed, a number out of range, an unknown choice; in `init`, as `dino.DINO`.

  Source: Zhou, Wei, Wang, Shen, Xie, Yuille, Kong, "iBOT: Image BERT Pre-Training with Online Tokenizer", 2021, arXiv
    2111.07832; Oquab, Darcet, Moutakanni et al., "DINOv2: Learning Robust Visual Features without Supervision", 2023,
    arXiv 2304.07193.
  Differs from the reference: a centre of patches is that of all patches as in iBOT, where DINOv2's is of those hidden.
    Hidden patches of a view fill an array as long as the largest share asks for; DINOv2 packs those of a whole batch.
  """

  prototypes: int = 8192
  heads: Literal["shared", "separate"] = "shared"
  patch_prototypes: int | None = None
  patch_teacher_temperature: float | Schedule | None = None
  patches: float | Schedule = 1.0
  koleo: float | Schedule = 0.0
  masks: Draw = "independent"
  mask_share: tuple[float, float] = (0.1, 0.5)
  mask_probability: float = 0.5
  smallest_block: int | None = None

  def __post_init__(self):
    super().__post_init__()
    _check_encoder(self.encoder)
    for key, choices in CHOICES.items():
      if getattr(self, key) not in choices:
        raise UserError(f"ibot.iBOT: {key} {nearest(str(getattr(self, key)), choices)}")
    low, high = self.mask_share
    if not 0 < low <= high < 1:
      raise UserError(f"ibot.iBOT: mask_share {low} to {high}, expected shares above 0 and below 1")
    if not 0 < self.mask_probability <= 1:
      raise UserError(f"ibot.iBOT: mask_probability {self.mask_probability}, expected above 0 and at most 1")
    if self.patch_prototypes is not None and self.heads == "shared":
      raise UserError(f"ibot.iBOT: patch_prototypes {self.patch_prototypes}, expected none where heads are shared")
    for key, value in {"patch_prototypes": 2, "smallest_block": 1}.items():
      if getattr(self, key) is not None and getattr(self, key) < value:
        raise UserError(f"ibot.iBOT: {key} {getattr(self, key)}, expected at least {value}")
    for key in ("patches", "koleo"):
      if not isinstance(getattr(self, key), Schedule) and not 0 <= getattr(self, key) < math.inf:
        raise UserError(f"ibot.iBOT: {key} {getattr(self, key)}, expected a finite number, 0 or more")
    temperature = self.patch_teacher_temperature
    if isinstance(temperature, int | float) and not temperature > 0:
      raise UserError(f"ibot.iBOT: patch_teacher_temperature {temperature}, expected more than 0")

  @property
  def couples_examples(self) -> bool:  # type: ignore[override]
    """Sinkhorn, neighbours (KoLeo) and strata are the whole batch's."""
    return self.centering == "sinkhorn" or bool(self.koleo) or self.masks == "stratified"

  @property
  def heads_of(self) -> dict[str, DINOHead]:
    """The heads by name: "head", and "patch_head" where patches have one of their own."""
    separate = {"patch_head": self._head(self.patch_prototypes or self.prototypes)}
    return {"head": self._head(self.prototypes)} | (separate if self.heads == "separate" else {})

  @property
  def _patch_head(self) -> str:
    return "patch_head" if self.heads == "separate" else "head"

  @property
  def _centers(self) -> dict[str, int]:
    return {"cls": self.prototypes, "patches": self.patch_prototypes or self.prototypes}

  def loss(self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array) -> LossOutput:
    """Returns the sum and its parts, the mean entropy of the teacher's cls probabilities, and the rest of DINO's."""
    keys = random.example_keys(rng, batch["index"])
    views = batch["views"]
    mask = self._mask(views, keys)
    hidden = hidden_places(mask, most=max(1, int(self.mask_share[1] * mask.shape[-1])))
    cls, patches = self._see(params, views, mask=as_images(mask), keys=random.spread(keys, GLOBAL, views.shape[1]))
    targets, patch_targets, center = self._teach(state, views, hidden, step)
    student = {"temperature": self.student_temperature}
    dino = dino_loss(self._score(params, self._with_local(params, cls, batch, keys)), targets, **student)
    guesses = self._score(params, _take(patches, hidden[0]), head=self._patch_head)
    ibot = ibot_loss(guesses, patch_targets, hidden[1], **student)
    sure = jnp.mean(entropy(targets))
    metrics = {"ibot/cls": dino, "ibot/patches": ibot, "ibot/entropy": sure, "ibot/kl": dino - sure}
    total = dino + Schedule.of(self.patches)(step) * ibot
    if self.koleo:
      metrics["ibot/koleo"] = sum(koleo(view) for view in jnp.moveaxis(cls, 1, 0))
      total += Schedule.of(self.koleo)(step) * metrics["ibot/koleo"]
    return LossOutput(loss=total, state={**state, "center": center}, metrics=metrics)

  def _mask(self, views: Array, keys: Array) -> Array:
    """Returns which patches of views f32[B,V,H,W,C] are hidden from the student, bool[B,V,N]."""
    count, grid = views.shape[1], grid_shape(*views.shape[2:4], patch=self.encoder.patch)
    drawn = {"share": self.mask_share, "probability": self.mask_probability, "draw": self.masks}
    hidden = hidden_shares(random.spread(keys, SHARES, count), **drawn) * math.prod(grid)
    smallest = self.smallest_block or (min(grid) // 3) ** 2
    return as_views(block_masks(random.spread(keys, BLOCKS, count), hidden, grid=grid, smallest=smallest), count)

  def _see(self, params: Params, views: Array, **options: Any) -> tuple[Array, Array]:
    """Returns cls tokens f32[B,V,D] and patches f32[B,V,N,D] of views f32[B,V,H,W,C]."""
    found = self.encoder.apply({"params": params["encoder"]}, as_images(views), **options)
    return as_views(found["cls"], views.shape[1]), as_views(found["tokens"], views.shape[1])

  def _with_local(self, params: Params, cls: Array, batch: Batch, keys: Array) -> Array:
    """Returns cls tokens f32[B,V,D] of the views, and behind them those of local views where there are some."""
    if self.crops == "views":
      return cls
    local = batch["local_views"]
    return jnp.concatenate([cls, self._see(params, local, keys=random.spread(keys, LOCAL, local.shape[1]))[0]], axis=1)

  def _teach(
    self, state: State, views: Array, hidden: tuple[Array, Array], step: Array
  ) -> tuple[Array, Array, dict[str, State]]:
    """Returns the teacher's probabilities of cls tokens f32[B,V,K] and hidden patches f32[B,V,M,K], and the centres.

    Args:
      state, step: as for `loss`.
      views: f32[B,V,H,W,C].
      hidden: which patches these are, and which of the M there are, of `hidden_places`.
    """
    teacher = jax.lax.stop_gradient(state["teacher"])
    temperature = Schedule.of(self.teacher_temperature)(step)
    cls, patches = self._see(teacher, views)
    targets, center = self._centering(state["center"]["cls"], self._score(teacher, cls), temperature=temperature)
    if self.patch_teacher_temperature is not None:
      temperature = Schedule.of(self.patch_teacher_temperature)(step)
    score = lambda patches: self._score(teacher, patches, head=self._patch_head)
    probabilities = functools.partial(self._centering, state["center"]["patches"], temperature=temperature)
    place, counted = hidden
    if self.centering == "ema":  # the centre is the mean of all patches
      patch_targets, patch_center = probabilities(score(patches))
      patch_targets = _take(patch_targets, place)
    else:  # the prototypes are filled by the hidden patches alone
      patch_targets, patch_center = probabilities(score(_take(patches, place)), counted=counted)
    return targets, patch_targets, {"cls": center, "patches": patch_center}


def _take(rows: Array, place: Array) -> Array:
  """Returns rows f32[B,V,M,D] of rows f32[B,V,N,D] at the places int32[B,V,M]."""
  return sharding.constrain(jnp.take_along_axis(rows, place[..., None], axis=2))


def _check_encoder(encoder: Any) -> None:
  if not isinstance(encoder, ViT):
    raise UserError(f"ibot.iBOT: encoder {type(encoder).__name__}, expected vit.ViT")
  for key in ("mask_token", "cls_token"):
    if getattr(encoder, key) != "learnt":
      raise UserError(f"ibot.iBOT: encoder.{key} {getattr(encoder, key)}, expected learnt")
