"""MoCo: a view looks for its partner's key among the keys of many batches before, kept in a queue."""

import dataclasses
from typing import final

import jax
import jax.numpy as jnp
from flax import linen as nn

from ssljax import rng as random
from ssljax import sharding
from ssljax.errors import UserError
from ssljax.losses.contrastive import info_nce, l2_normalize
from ssljax.losses.pairs import Pairs, check_pairs
from ssljax.losses.prediction import mean_cosine
from ssljax.models.batch_groups import Groups
from ssljax.models.branch import Branch
from ssljax.models.heads import MLPHead
from ssljax.objectives.siamese import VIEWS, _WithTeacher
from ssljax.schedules import Schedule
from ssljax.types import Array, Batch, LossOutput, Params, State


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class MoCo(_WithTeacher):
  """Encodes view 0 with the student, view 1 with the teacher, and classifies which key is the query's.

      teacher <- decay teacher + (1 - decay) student
      q, k     = student(view 0), teacher(view 1)
      loss     = InfoNCE of q with k among the queue
      queue   <- k in front, as many keys leave at the end

  In that order: the teacher moves before it is asked, and the keys of a batch are not among its own negatives.

  Where a query and its key were normalised with the statistics of the same examples, these tell which batch a key is
  from, and the loss is won without looking at the picture. `groups` keeps statistics of parts of the batch apart, and
  groups keys otherwise than queries: neighbours are normalised together as queries, examples from all over the batch
  as keys. The paper shuffles the pictures among devices for that; here none moves. With 1 all statistics are those of
  the whole batch.

  MoCo v1 is `projector_layers=1, temperature=0.07`; the defaults are v2's.

  Attributes:
    encoder: gives "embedding" f32[B,D] of images; a `resnet.ResNet` where there are groups.
    projector_layers: 1 is a linear map (v1), 2 has a hidden layer as wide as the embedding (v2); no normalisation.
    projector_out: length of queries and keys.
    queue: how many keys are kept, a multiple of the batch.
    temperature: what cosines are divided by.
    decay: of the teacher.
    groups: parts of the batch with batch statistics of their own, a divisor of it (8 in the paper, one a GPU).
    pairs: how the logits are computed, as in `simclr.SimCLR`.

  Raises:
    UserError: a number out of range, groups of an encoder that has none, an unknown way for the pairs; in `init`, a
      batch without two views, of one example, that does not divide the queue or that groups do not divide.

  Source: He, Fan, Wu, Xie, Girshick, "Momentum Contrast for Unsupervised Visual Representation Learning", 2019, arXiv
    1911.05722; Chen, Fan, Girshick, He, "Improved Baselines with Momentum Contrastive Learning", 2020, arXiv
    2003.04297.
  Differs from the reference: groups are chosen by place, not drawn; running statistics follow the mean of the groups,
    there those of the first GPU's.
  """

  projector_layers: int = 2
  projector_out: int = 128
  queue: int = 65536
  temperature: float | Schedule = 0.2
  decay: float | Schedule = 0.999
  groups: int = 1
  pairs: Pairs = "dense"

  def __post_init__(self):
    check_pairs(self.pairs, where="moco.MoCo: pairs")
    self._check_sizes("projector_layers", "projector_out", "queue", "groups")
    self._check_positive("temperature")
    self._check_share("decay")
    if self.groups > 1 and not hasattr(self.encoder, "groups"):
      name = type(self.encoder).__name__
      raise UserError(f"moco.MoCo: groups {self.groups}, expected 1: {name} has no statistics of groups")

  @property
  def projector(self) -> MLPHead:
    """The head between the embedding and the loss."""
    return MLPHead(
      out=self.projector_out, layers=self.projector_layers, norm="none", last_bias="present", dtype=self.encoder.dtype
    )

  @property
  def student(self) -> Branch:
    """Encoder and projector of queries."""
    return Branch(self._grouped("blocks"), self.projector)

  @property
  def teacher(self) -> Branch:
    """Encoder and projector of keys."""
    return Branch(self._grouped("strides"), self.projector)

  def _grouped(self, order: str) -> nn.Module:
    return self.encoder if self.groups == 1 else self.encoder.clone(groups=Groups(self.groups, order))

  def init(self, rng: Array, batch: Batch) -> tuple[Params, State]:
    """Returns the student's parameters; its statistics, a teacher that is the student, and random keys as "queue"."""
    count = len(batch["views"])
    if self.queue % count:
      raise UserError(f"moco.MoCo: queue {self.queue} is not a multiple of the batch of {count}")
    Groups(self.groups).members(count)
    keys = jax.random.split(rng)
    params, state = super().init(keys[0], batch)
    queue = l2_normalize(jax.random.normal(keys[1], (self.queue, self.projector_out)))
    return params, {**state, **self._copy(params, state), "queue": queue}

  def loss(self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array) -> LossOutput:
    """Returns `info_nce` of the queries, and the mean cosine of queries and their keys."""
    depth = random.spread(random.example_keys(rng, batch["index"]), VIEWS, 1)
    seen, stats = self.student.each_view(params, state["stats"], batch["views"][:, :1], keys=depth)
    teacher = self._follow(params, state, step)
    keys, teacher_stats = self._teach(teacher, state, batch["views"][:, 1:])
    query, key, queue = seen[0]["projection"], keys[0], sharding.whole(state["queue"])
    loss = info_nce(query, key, queue, temperature=Schedule.of(self.temperature)(step), pairs=self.pairs)
    moved = {
      "stats": stats,
      "teacher": teacher,
      "teacher_stats": teacher_stats,
      "queue": _enqueued(queue, l2_normalize(key)),
    }
    return LossOutput(loss=loss, state=moved, metrics={"contrastive/positive_cosine": mean_cosine(query, key)})


def _enqueued(queue: Array, keys: Array) -> Array:
  """Returns the queue [K,D] with keys [B,D] in front and without its last B."""
  # Left to the compiler, keys would be exchanged to lie as the queue's parts do.
  return sharding.whole(jnp.concatenate([sharding.whole(keys), queue])[: len(queue)])
