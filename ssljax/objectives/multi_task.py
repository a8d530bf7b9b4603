"""Several objectives at once on one encoder: what is learnt is the weighted sum of what they ask."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, final

import jax
from flax import linen as nn

from ssljax.build import build
from ssljax.errors import UserError
from ssljax.schedules import Schedule
from ssljax.types import Array, Batch, LossOutput, Objective, Params, Part, State

TASKS = "tasks"  # where the tasks' own parameters and states lie; the encoder's lie beside them
ENCODER = "encoder"
HERE = "objective.tasks"


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiTask(Objective):
  """Trains one encoder on any set of objectives; each keeps its heads, queues and teachers to itself.

      loss = sum_k weights_k * loss_k(encoder, heads_k)

  The trees are {"encoder": what is shared, "tasks": {name: all else of that objective}}; the batch statistics of the
  encoder are shared too: each task moves them on, in the tasks' order. A task gets random numbers of its own.

  A task that reads `image` beside one that reads `views` is given the first view.

  Attributes:
    encoder: the network that all tasks train.
    tasks: name -> a section as `objective` has, or an objective; none says which encoder, or all the same one. They
      must have a part "encoder" (`Objective.parts`). The first is the one evaluators see (`encode`).
    weights: name -> the weight of a task's loss, 1 where none is given.

  Raises:
    UserError: no task, an objective without an encoder of its own to share, another encoder, a weight of no task or
      out of range.

  Source: Caruana, "Multitask Learning", Machine Learning 28, 1997; a self-supervised and a supervised task at once:
    Qian, "Heuristic Vision Pre-Training with Self-Supervised and Supervised Multi-Task Learning", 2023, arXiv
    2310.07510.
  """

  encoder: nn.Module
  tasks: Mapping[str, Any]
  weights: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    if not self.tasks:
      raise UserError(f"{HERE}: found none, expected at least one")
    for name, task in self.objectives.items():
      part = task.parts().get(ENCODER)
      if part is None:
        raise UserError(f"{HERE}.{name}: {type(task).__name__} has no part called encoder that could be shared")
      if part.module != self.encoder:
        raise UserError(f"{HERE}.{name}.encoder: found another than objective.encoder, expected none or the same")
    for name, weight in self._schedules.items():
      if name not in self.tasks:
        raise UserError(f"objective.weights.{name}: no such task, expected one of {', '.join(self.tasks)}")
      number = isinstance(weight, int | float) and 0 <= weight < math.inf
      if not isinstance(weight, Schedule) and not number:
        raise UserError(f"objective.weights.{name}: found {weight!r}, expected a number, 0 or more, or a schedule")

  @functools.cached_property
  def objectives(self) -> dict[str, Objective]:
    """The objectives by name, built with the shared encoder."""
    return {name: self._build(task, f"{HERE}.{name}") for name, task in self.tasks.items()}

  def _build(self, task: Any, where: str) -> Objective:
    if isinstance(task, Objective):
      return task
    if isinstance(task, Mapping) and ENCODER in task:
      return build(task, "objectives", where=where)
    return build(task, "objectives", where=where, encoder=self.encoder)

  @functools.cached_property
  def _schedules(self) -> dict[str, float | Schedule]:
    return {
      name: build(weight, "schedules", where=f"objective.weights.{name}") if isinstance(weight, Mapping) else weight
      for name, weight in self.weights.items()
    }

  @property
  def batch_keys(self) -> tuple[str, ...]:  # type: ignore[override]
    """What the tasks read together; `image` not where there are `views`."""
    keys = dict.fromkeys(key for task in self.objectives.values() for key in task.batch_keys)
    return tuple(key for key in keys if key != "image" or "views" not in keys)

  @property
  def couples_examples(self) -> bool:  # type: ignore[override]
    """Whether one of the tasks couples the examples of a batch."""
    return any(task.couples_examples for task in self.objectives.values())

  def check_texts(self, *, size: int, end: int) -> None:
    """Checks what the tasks that read texts check."""
    for name, task in self.objectives.items():
      if hasattr(task, "check_texts"):
        task.check_texts(size=size, end=end, where=f"{HERE}.{name}")

  def check_labels(self, num_classes: int | None, *, source: str) -> None:
    """Checks what the tasks that read labels check."""
    for name, task in self.objectives.items():
      if hasattr(task, "check_labels"):
        task.check_labels(num_classes, source=source, where=f"{HERE}.{name}")

  def parts(self) -> dict[str, Part]:
    """Returns "encoder", and the other networks of each task as "TASK_PART"."""
    shared = Part(self.encoder, ENCODER, ENCODER, *self._teacher())
    inside = lambda name, path: None if path is None else f"{TASKS}/{name}/{path}".rstrip("/")
    own = {
      f"{name}_{key}": Part(part.module, *(inside(name, path) for path in part[1:]))
      for name, task in self.objectives.items()
      for key, part in task.parts().items()
      if key != ENCODER
    }
    return {ENCODER: shared} | own

  def _teacher(self) -> tuple[str | None, str | None]:
    """Returns where the first teacher of the encoder lies, if a task has one, and its batch statistics."""
    inside = lambda name, path: None if path is None else f"{TASKS}/{name}/{path}"
    found = ((name, task.parts()[ENCODER]) for name, task in self.objectives.items())
    taught = ((inside(name, part.teacher), inside(name, part.teacher_state)) for name, part in found if part.teacher)
    return next(taught, (None, None))

  def init(self, rng: Array, batch: Batch) -> tuple[Params, State]:
    """Returns the trees; the encoder is the first task's, the same kind of network for all of them."""
    params: Params = {TASKS: {}}
    state: State = {TASKS: {}}
    for number, (name, task) in enumerate(self.objectives.items()):
      like = jax.eval_shape(functools.partial(_for_task, task), dict(batch))
      found = task.init(jax.random.fold_in(rng, number), like)
      encoder, statistics = _take_encoder(task, *found)
      params.setdefault(ENCODER, encoder)
      state[ENCODER] = state.get(ENCODER) or statistics
      params[TASKS][name], state[TASKS][name] = _without_encoder(task, *found)
    # Teachers are copies of the encoder that trains, not of the one a task drew.
    return params, self.imported(params, state)

  def _of_task(self, name: str, params: Params, state: State) -> tuple[Params, State]:
    """Returns parameters and state as the objective `name` knows them."""
    part = self.objectives[name].parts()[ENCODER]
    own = _put(params[TASKS][name], part.params, params[ENCODER])
    held = state[TASKS][name]
    return own, held if part.state is None else _put(held, part.state, state[ENCODER])

  def _back(self, name: str, params: Params, state: State, found: tuple[Params, State]) -> tuple[Params, State]:
    """Returns the trees with what an objective made of its own, `found`, in their places."""
    task = self.objectives[name]
    encoder, statistics = _take_encoder(task, *found)
    own, held = _without_encoder(task, *found)
    put = lambda tree, shared, mine: {**tree, ENCODER: shared, TASKS: {**tree[TASKS], name: mine}}
    statistics = state[ENCODER] if task.parts()[ENCODER].state is None else statistics
    return put(params, encoder, own), put(state, statistics, held)

  def loss(self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array) -> LossOutput:
    """Returns the weighted sum, and as "TASK/..." each task's loss and metrics; `weight` counts examples."""
    total, metrics = 0.0, {}
    for number, (name, task) in enumerate(self.objectives.items()):
      own, held = self._of_task(name, params, state)
      out = task.loss(own, held, _for_task(task, batch), rng=jax.random.fold_in(rng, number), step=step)
      _, state = self._back(name, params, state, (own, out.state))
      total += Schedule.of(self._schedules.get(name, 1.0))(step) * out.loss
      metrics[f"{name}/loss"] = out.loss
      metrics |= {f"{name}/{key.replace('/', '_')}": value for key, value in out.metrics.items()}
    return LossOutput(loss=total, state=state, metrics=metrics, weight=len(batch["index"]))

  def encode(self, params: Params, state: State, batch: Batch) -> dict[str, Array]:
    """Returns what the first task returns."""
    name, task = next(iter(self.objectives.items()))
    return task.encode(*self._of_task(name, params, state), batch)

  def post_update(self, params: Params, state: State, *, step: Array) -> tuple[Params, State]:
    """Returns parameters and state after the `post_update` of each task, in their order."""
    for name, task in self.objectives.items():
      params, state = self._back(name, params, state, task.post_update(*self._of_task(name, params, state), step=step))
    return params, state

  def imported(self, params: Params, state: State) -> State:
    """Returns the state after `imported` of each task."""
    for name, task in self.objectives.items():
      own, held = self._of_task(name, params, state)
      _, state = self._back(name, params, state, (own, task.imported(own, held)))
    return state

  def show(self, params: Params, state: State, batch: Batch, *, rng: Array) -> dict[str, Array]:
    """Returns the pictures of all tasks, as "TASK: caption"."""
    pictures = {}
    for number, (name, task) in enumerate(self.objectives.items()):
      own = self._of_task(name, params, state)
      found = task.show(*own, _for_task(task, batch), rng=jax.random.fold_in(rng, number))
      pictures |= {f"{name}: {caption}": rows for caption, rows in found.items()}
    return pictures


def _for_task(task: Objective, batch: Batch) -> Batch:
  """Returns the batch with the first view as `image` where the task reads one and there is none."""
  if "image" not in task.batch_keys or "image" in batch:
    return batch
  return {**batch, "image": batch["views"][:, 0]}


def _take_encoder(task: Objective, params: Params, state: State) -> tuple[Params, State]:
  """Returns the encoder's parameters and batch statistics."""
  part = task.parts()[ENCODER]
  return _get(params, part.params), {} if part.state is None else _get(state, part.state)


def _without_encoder(task: Objective, params: Params, state: State) -> tuple[Params, State]:
  """Returns parameters and state with nothing where the encoder's were."""
  part = task.parts()[ENCODER]
  return _put(params, part.params, {}), state if part.state is None else _put(state, part.state, {})


def _get(nested: Any, path: str) -> Any:
  for key in path.split("/"):
    nested = nested.get(key, {})
  return nested


def _put(nested: Any, path: str, value: Any) -> Any:
  """Returns the nested dict with `value` at `path`."""
  first, _, rest = path.partition("/")
  return {**nested, first: _put(nested.get(first, {}), rest, value) if rest else value}
