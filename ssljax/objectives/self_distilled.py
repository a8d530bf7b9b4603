"""What DINO and iBOT share: a student, its moving average as the teacher, and scores over prototypes."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from ssljax import tree
from ssljax.errors import UserError
from ssljax.losses.centering import Centering, Kind
from ssljax.models.branch import couples, run
from ssljax.models.crops import check_crops
from ssljax.models.dino_head import DINOHead
from ssljax.schedules import Schedule
from ssljax.types import Array, Batch, Objective, Params, Part, State


@dataclasses.dataclass(frozen=True, kw_only=True)
class _SelfDistilled(Objective):
  """The fields, state and teacher of a method of self-distillation; its loss is the subclass's.

  State: "stats" and "teacher_stats", batch statistics of both encoders; "teacher", parameters; "center", what keeps the
  teacher's scores from collapsing.
  """

  encoder: nn.Module
  crops: Literal["multi", "views"] = "multi"
  prototypes: int = 65536
  head_hidden: int = 2048
  head_bottleneck: int = 256
  head_layers: int = 3
  student_temperature: float = 0.1
  teacher_temperature: float | Schedule = 0.04
  decay: float | Schedule = 0.996
  centering: Kind = "ema"
  center_decay: float = 0.9
  sinkhorn_iterations: int = 3

  def __post_init__(self):
    where = self._where
    if self.crops not in ("multi", "views"):
      raise UserError(f"{where}: crops {self.crops}, expected multi or views")
    for key, value in {"prototypes": 2, "head_hidden": 1, "head_bottleneck": 1, "head_layers": 1}.items():
      if getattr(self, key) < value:
        raise UserError(f"{where}: {key} {getattr(self, key)}, expected at least {value}")
    for key in ("student_temperature", "teacher_temperature"):
      if not isinstance(getattr(self, key), Schedule) and not getattr(self, key) > 0:
        raise UserError(f"{where}: {key} {getattr(self, key)}, expected more than 0")
    if not isinstance(self.decay, Schedule) and not 0 <= self.decay <= 1:
      raise UserError(f"{where}: decay {self.decay}, expected from 0 to 1")
    try:
      _ = self._centering
    except UserError as error:
      raise UserError(f"{where}: {error}") from error

  @property
  def _where(self) -> str:
    """The objective's name in messages."""
    return f"{type(self).__module__.rsplit('.', 1)[-1]}.{type(self).__name__}"

  @property
  def batch_keys(self) -> tuple[str, ...]:  # type: ignore[override]
    """Keys of the batch that `loss` reads: of the crops, the largest first."""
    return ("views", "local_views") if self.crops == "multi" else ("views",)

  @property
  def couples_examples(self) -> bool:  # type: ignore[override]
    """Sinkhorn and batch statistics are the whole batch's."""
    return self.centering == "sinkhorn" or couples(self.encoder)

  @property
  def heads_of(self) -> dict[str, DINOHead]:
    """The heads by name."""
    return {"head": self._head(self.prototypes)}

  def _head(self, prototypes: int) -> DINOHead:
    sizes = (prototypes, self.head_hidden, self.head_bottleneck, self.head_layers)
    return DINOHead(*sizes, dtype=self.encoder.dtype)

  @property
  def _centering(self) -> Centering:
    return Centering(kind=self.centering, decay=self.center_decay, iterations=self.sinkhorn_iterations)

  @property
  def _centers(self) -> dict[str, int]:
    """Number of prototypes of each centre, by what it is the centre of."""
    return {"cls": self.prototypes}

  def parts(self) -> dict[str, Part]:
    """Returns "encoder", whose teacher is what is used after pretraining."""
    teacher = {"teacher": "teacher/encoder", "teacher_state": "teacher_stats/encoder"}
    return {"encoder": Part(self.encoder, "encoder", "stats/encoder", **teacher)}

  def init(self, rng: Array, batch: Batch) -> tuple[Params, State]:
    """Returns the student's parameters; and its batch statistics, a teacher that is a copy, and empty centres."""
    check_crops(self.encoder, [batch[key] for key in self.batch_keys], where=self._where)
    keys = jax.random.split(rng, 1 + len(self.heads_of))
    encoder = self.encoder.init(keys[0], jnp.zeros((1, *batch["views"].shape[2:])))
    features = jnp.zeros((1, self.encoder.features))
    heads = {
      name: head.init(key, features)["params"]
      for key, (name, head) in zip(keys[1:], self.heads_of.items(), strict=True)
    }
    params = {"encoder": encoder["params"], **heads}
    stats = {"encoder": encoder.get("batch_stats", {})}
    center = {name: self._centering.init(count) for name, count in self._centers.items()}
    return params, self.imported(params, {"stats": stats, "center": center})

  def imported(self, params: Params, state: State) -> State:
    """Returns the state with the teacher a copy of the student that came in."""
    copy = lambda nested: jax.tree.map(jnp.array, nested)
    return {**state, "teacher": copy(params), "teacher_stats": copy(state["stats"])}

  def _score(self, params: Params, x: Array, *, head: str = "head") -> Array:
    """Returns scores f32[...,K] over a head's prototypes."""
    return self.heads_of[head].apply({"params": params[head]}, x)

  def encode(self, params: Params, state: State, batch: Batch) -> dict[str, Array]:
    """Returns the teacher's "embedding" f32[B,D], with its running batch statistics, and "projection" f32[B,P].

    The projection is what the head compares with prototypes.
    """
    del params
    teacher, stats = state["teacher"], state["teacher_stats"]["encoder"]
    found, _ = run(self.encoder, teacher["encoder"], stats, batch["image"], train=False)
    projection = self.heads_of["head"].mlp.apply({"params": teacher["head"]["mlp"]}, found["embedding"])
    return {"embedding": found["embedding"], "projection": projection}

  def post_update(self, params: Params, state: State, *, step: Array) -> tuple[Params, State]:
    """Returns the parameters, and the state with the teacher moved towards them and the centres moved."""
    teacher = tree.moved(state["teacher"], params, decay=Schedule.of(self.decay)(step))
    center = {name: self._centering.moved(held) for name, held in state["center"].items()}
    return params, {**state, "teacher": teacher, "center": center}
