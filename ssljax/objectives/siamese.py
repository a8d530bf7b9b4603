"""What methods of two views of a picture have in common: their networks' state, and a teacher that follows."""

import abc
import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from ssljax import rng as random
from ssljax import tree
from ssljax.errors import UserError, nearest
from ssljax.models.branch import Branch
from ssljax.schedules import Schedule
from ssljax.types import Array, Batch, Objective, Params, Part, State

VIEWS = 0  # the use of an example's key


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Siamese(Objective):
  """An objective over two views that go through one branch; its batch statistics are the state "stats".

  Attributes:
    encoder: gives "embedding" f32[B,D] of images.
  """

  encoder: nn.Module
  batch_keys: ClassVar[tuple[str, ...]] = ("views",)
  couples_examples: ClassVar[bool] = True

  @property
  @abc.abstractmethod
  def student(self) -> Branch:
    """What the optimiser moves."""

  @property
  def _name(self) -> str:
    return f"{type(self).__module__.rpartition('.')[2]}.{type(self).__name__}"

  def _check_sizes(self, *keys: str) -> None:
    for key in keys:
      if getattr(self, key) is not None and getattr(self, key) < 1:
        raise UserError(f"{self._name}: {key} {getattr(self, key)}, expected at least 1")

  def _check_positive(self, key: str) -> None:
    value = getattr(self, key)
    if not isinstance(value, Schedule) and not value > 0:
      raise UserError(f"{self._name}: {key} {value}, expected more than 0")

  def _check_share(self, key: str) -> None:
    value = getattr(self, key)
    if not isinstance(value, Schedule) and not 0 <= value <= 1:
      raise UserError(f"{self._name}: {key} {value}, expected a number from 0 to 1")

  def _check_choice(self, key: str, *choices: str) -> None:
    if getattr(self, key) not in choices:
      raise UserError(f"{self._name}: {key} {nearest(str(getattr(self, key)), choices)}")

  def parts(self) -> dict[str, Part]:
    """Returns "encoder", the student's."""
    return {"encoder": Part(self.encoder, "encoder", "stats/encoder")}

  def init(self, rng: Array, batch: Batch) -> tuple[Params, State]:
    """Returns the student's parameters and, as "stats", its batch statistics, each by the networks' names."""
    count, views = batch["views"].shape[:2]
    if views != 2:
      raise UserError(f"{self._name}: found {views} views of an image, expected 2")
    if count < 2:
      raise UserError(f"{self._name}: found a batch of {count}, expected at least 2")
    params, stats = self.student.init(rng, batch["views"])
    return params, {"stats": stats}

  def _see(self, params: Params, state: State, batch: Batch, rng: Array) -> tuple[list[dict[str, Array]], State]:
    """Returns what the student gives of each view, and its next batch statistics."""
    keys = random.spread(random.example_keys(rng, batch["index"]), VIEWS, 2)
    return self.student.each_view(params, state["stats"], batch["views"], keys=keys)

  def encode(self, params: Params, state: State, batch: Batch) -> dict[str, Array]:
    """Returns the student's "embedding" f32[B,D] and "projection" f32[B,P], with its running batch statistics."""
    found, _ = self.student(params, state["stats"], batch["image"], train=False)
    return {name: found[name] for name in ("embedding", "projection")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _WithTeacher(_Siamese):
  """The same with a teacher: a moving average of the student's parameters, with batch statistics of its own.

  The state has them as "teacher" and "teacher_stats". Its parameters alone follow the student.

  Attributes:
    decay: of the teacher.
  """

  decay: float | Schedule = 0.996

  @property
  def teacher(self) -> Branch:
    """The teacher's networks: the student's without the predictor."""
    return dataclasses.replace(self.student, predictor=None)

  def _drawn(self, rng: Array, batch: Batch) -> State:
    """Returns a teacher with random parameters of its own."""
    params, stats = self.teacher.init(rng, batch["views"])
    return {"teacher": params, "teacher_stats": stats}

  def imported(self, params: Params, state: State) -> State:
    """Returns the state with the teacher a copy of the student that came in."""
    return {**state, **self._copy(params, state)}

  def _copy(self, params: Params, state: State) -> State:
    """Returns a teacher that is the student."""
    return jax.tree.map(jnp.array, {"teacher": self._of(params), "teacher_stats": self._of(state["stats"])})

  def _of(self, student: Params) -> Params:
    """Returns the part of a tree of the student's networks that the teacher has, too."""
    return {name: student[name] for name in self.teacher.networks}

  def _follow(self, params: Params, state: State, step: Array) -> Params:
    """Returns the teacher's next parameters."""
    return tree.moved(state["teacher"], self._of(params), decay=Schedule.of(self.decay)(step))

  def _teach(self, teacher: Params, state: State, views: Array) -> tuple[list[Array], State]:
    """Returns the projections f32[B,P] that a teacher gives of each view, and its next batch statistics."""
    found, stats = self.teacher.each_view(teacher, state["teacher_stats"], views)
    return [jax.lax.stop_gradient(view["projection"]) for view in found], stats
