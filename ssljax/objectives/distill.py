"""Distillation: a small classifier learns what a fine-tuned one says of pictures, labelled or not."""

import dataclasses
from typing import final

import jax
import jax.numpy as jnp

from ssljax import rng as random
from ssljax.errors import UserError
from ssljax.losses.classification import smoothed_cross_entropy
from ssljax.losses.self_distillation import distillation
from ssljax.objectives.classify import Classifier
from ssljax.types import Array, Batch, LossOutput, Objective, Params, Part, State


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Distill(Objective):
  """Holds a student's class probabilities to those of a teacher that does not move.

      loss = (1 - label_weight) * mean_b CE(softmax(t_b / T), softmax(s_b / T))
             + label_weight * mean_b [b has a label] CE(label_b, softmax(s_b))

  t and s are the logits of teacher and student for the same augmented picture; the teacher normalises by its running
  statistics. Student and teacher are `classify.Classifier`s; the parameters are the student's, in that objective's
  places, and the state holds the teacher's, so that a fine-tuned run comes in with `--from` and

      init_step = "restart"
      init = (("^objective_state/teacher/", "load params/"),
              ("^objective_state/teacher_state/", "load objective_state/"),
              ("^(params|opt_state|objective_state)/", "reinit"))

  Attributes:
    student: what is trained.
    teacher: what is learnt from; it has the same classes.
    temperature: T.
    label_weight: the paper's 1 - alpha, 0 where no labels are read; a label of -1 is none. The student's smoothing
      counts here.

  Raises:
    UserError: a number out of range, networks that are no classifiers or of other classes.

  Source: Chen, Kornblith, Swersky, Norouzi, Hinton, Big Self-Supervised Models are Strong Semi-Supervised Learners,
    2020, arXiv 2006.10029, equations 2 and 3; Hinton, Vinyals, Dean, Distilling the Knowledge in a Neural Network,
    2015, arXiv 1503.02531 (whose factor T^2 is not here).
  """

  student: Classifier
  teacher: Classifier
  temperature: float = 1.0
  label_weight: float = 0.0

  def __post_init__(self):
    for name, network in {"student": self.student, "teacher": self.teacher}.items():
      if not isinstance(network, Classifier):
        raise UserError(f"distill.Distill: {name} {type(network).__name__}, expected classify.Classifier")
    if self.student.num_classes != self.teacher.num_classes:
      found = f"student of {self.student.num_classes} classes"
      raise UserError(f"distill.Distill: {found}, expected {self.teacher.num_classes} as the teacher has")
    if not 0 < self.temperature < float("inf"):
      raise UserError(f"distill.Distill: temperature {self.temperature}, expected a finite number above 0")
    if not 0 <= self.label_weight <= 1:
      raise UserError(f"distill.Distill: label_weight {self.label_weight}, expected a share, from 0 to 1")

  @property
  def batch_keys(self) -> tuple[str, ...]:  # type: ignore[override]
    """Keys of the batch that `loss` reads: no labels unless they have a weight."""
    return ("image", "label") if self.label_weight else ("image",)

  @property
  def couples_examples(self) -> bool:  # type: ignore[override]
    """Whether the student couples the examples of a batch."""
    return self.student.couples_examples

  def check_labels(self, num_classes: int | None, *, source: str, where: str = "objective") -> None:
    """Checks the labels of a source as the student does, where they are read."""
    if self.label_weight:
      self.student.check_labels(num_classes, source=source, where=f"{where}.student")

  def parts(self) -> dict[str, Part]:
    """Returns the student's."""
    return {name: part._replace(state=f"student/{part.state}") for name, part in self.student.parts().items()}

  def init(self, rng: Array, batch: Batch) -> tuple[Params, State]:
    """Returns the student's parameters, and its state beside the teacher's parameters and state."""
    keys = jax.random.split(rng)
    params, state = self.student.init(keys[0], batch)
    teacher, teacher_state = self.teacher.init(keys[1], batch)
    return params, {"student": state, "teacher": teacher, "teacher_state": teacher_state}

  def loss(self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array) -> LossOutput:
    """Returns the sum, and how often student and teacher name the same class; `weight` is the examples."""
    del step
    teacher = jax.lax.stop_gradient(self.teacher.encode(state["teacher"], state["teacher_state"], batch)["logits"])
    keys = random.example_keys(rng, batch["index"])
    found, moved = self.student.logits(params, state["student"], batch["image"], train=True, keys=keys)
    logits, targets = found["logits"], jax.nn.softmax(teacher / self.temperature, axis=-1)
    loss = (1 - self.label_weight) * jnp.mean(distillation(logits, targets, temperature=self.temperature))
    if self.label_weight:
      loss += self.label_weight * self._supervised(logits, batch["label"])
    agrees = jnp.mean((jnp.argmax(logits, axis=-1) == jnp.argmax(teacher, axis=-1)).astype(jnp.float32))
    metrics = {"distill/agreement": agrees}
    return LossOutput(loss=loss, state=state | {"student": moved}, metrics=metrics, weight=len(logits))

  def _supervised(self, logits: Array, labels: Array) -> Array:
    """Returns the mean over all rows f32[], those without a label count as 0."""
    known = labels >= 0
    nats = smoothed_cross_entropy(logits, jnp.where(known, labels, 0), smoothing=self.student.smoothing)
    return jnp.mean(jnp.where(known, nats, 0.0))

  def encode(self, params: Params, state: State, batch: Batch) -> dict[str, Array]:
    """Returns the student's "embedding" f32[B,D] and "logits" f32[B,K]."""
    return self.student.encode(params, state["student"], batch)
