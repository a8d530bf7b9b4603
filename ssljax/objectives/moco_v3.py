"""MoCo v3: each view looks for the other one's key among those of the batch; no queue."""

import dataclasses
from typing import Literal, final

import jax.numpy as jnp

from ssljax.losses.contrastive import in_batch_nats, l2_normalize
from ssljax.losses.pairs import Pairs, check_pairs
from ssljax.losses.prediction import mean_cosine
from ssljax.models.branch import Branch
from ssljax.models.heads import MLPHead
from ssljax.objectives.siamese import _WithTeacher
from ssljax.schedules import Schedule
from ssljax.types import Array, Batch, LossOutput, Params, State


def contrast(query: Array, key: Array, *, temperature: float | Array, pairs: Pairs = "dense") -> Array:
  """Returns the contrastive loss of queries among the keys of their batch f32[], in nats times 2 T (algorithm 1).

  With all rows divided by their lengths:

      loss = 2 T * -1/B sum_i log( exp(q_i . k_i / T) / sum_j exp(q_i . k_j / T) )

  Args:
    query: f32[B,D].
    key: f32[B,D], the positive of each query.
    temperature: T.
    pairs: how the pairs are computed, see `losses.contrastive`.
  """
  nats = in_batch_nats(l2_normalize(query), l2_normalize(key), scale=1 / temperature, pairs=pairs)
  return 2 * temperature * jnp.mean(nats)


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class MoCoV3(_WithTeacher):
  """Classifies which of the batch's keys of the other view is of the same picture, in both directions.

      q_v      = predictor(student(view v))
      teacher <- decay teacher + (1 - decay) student
      k_v      = teacher(view v)
      loss     = contrast(q_0, k_1) + contrast(q_1, k_0)

  In that order: the teacher moves before it is asked. Batch statistics are those of one view on all devices.

  The paper freezes a ViT's patch embedding as it was drawn, which keeps training from dips:
  `optimizer.lr_multipliers = [("encoder/patch_embed", 0.0)]`. Its ResNet has `projector_layers=2`,
  `predictor_last_norm="none"` and `temperature=1.0`. Its decay grows by `schedules.cosine(peak=0.99, end=1.0)`.

  Attributes:
    encoder: gives "embedding" f32[B,D] of images.
    projector_layers, projector_hidden, projector_out: size of the projector, whose output is normalised.
    predictor_last_norm: whether the predictor's output is normalised too ("plain", for a ViT) or not; it has two
      layers and the projector's widths.
    temperature: what cosines are divided by.
    decay: of the teacher.
    pairs: how the logits are computed, as in `simclr.SimCLR`.

  Raises:
    UserError: a number out of range, an unknown way for the pairs; in `init`, a batch without two views or of one
      example.

  Source: Chen, Xie, He, "An Empirical Study of Training Self-Supervised Vision Transformers", 2021, arXiv 2104.02057.
  Differs from the reference: query, key and value kernels of the ViT are drawn as one matrix, there as three, and its
    cls token with a deviation of 0.02, there 1e-6.
  """

  projector_layers: int = 3
  projector_hidden: int = 4096
  projector_out: int = 256
  predictor_last_norm: Literal["plain", "none"] = "plain"
  temperature: float | Schedule = 0.2
  decay: float | Schedule = 0.99
  pairs: Pairs = "dense"

  def __post_init__(self):
    check_pairs(self.pairs, where="moco_v3.MoCoV3: pairs")
    self._check_sizes("projector_layers", "projector_hidden", "projector_out")
    self._check_choice("predictor_last_norm", "plain", "none")
    self._check_positive("temperature")
    self._check_share("decay")

  @property
  def student(self) -> Branch:
    """Encoder, projector and predictor."""
    head = MLPHead(self.projector_hidden, self.projector_out, self.projector_layers, dtype=self.encoder.dtype)
    predictor = head.clone(layers=2, last_norm=self.predictor_last_norm)
    return Branch(self.encoder, head.clone(last_norm="plain"), predictor)

  def init(self, rng: Array, batch: Batch) -> tuple[Params, State]:
    """Returns the student's parameters; its statistics, and a teacher that is the student."""
    params, state = super().init(rng, batch)
    return params, {**state, **self._copy(params, state)}

  def loss(self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array) -> LossOutput:
    """Returns the sum of both directions, and the mean cosine of queries and their keys."""
    seen, stats = self._see(params, state, batch, rng)
    queries = [view["prediction"] for view in seen]
    teacher = self._follow(params, state, step)
    keys, teacher_stats = self._teach(teacher, state, batch["views"])
    temperature = Schedule.of(self.temperature)(step)
    crossed = list(zip(queries, reversed(keys), strict=True))
    loss = sum(contrast(query, key, temperature=temperature, pairs=self.pairs) for query, key in crossed)
    cosine = sum(mean_cosine(query, key) for query, key in crossed) / 2
    moved = {"stats": stats, "teacher": teacher, "teacher_stats": teacher_stats}
    return LossOutput(loss=loss, state=moved, metrics={"contrastive/positive_cosine": cosine})
