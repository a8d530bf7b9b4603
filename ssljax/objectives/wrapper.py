"""What objectives have in common that add to another one: all but the loss is the other one's, with its own state."""

import dataclasses
from typing import Any

from ssljax.types import Array, Batch, Objective, Params, Part, State


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Wrapper(Objective):
  """An objective around another one, for streams of tasks: its state holds the other's as "objective".

  What only the other one has (UL2's `vocab_size`, `nats`, `write`) is found here too.

  Attributes:
    objective: what is learnt on every task.
  """

  objective: Objective

  def __getattr__(self, name: str) -> Any:
    """Returns what only the wrapped objective has; it must not take a state, which here is another."""
    # Copying and unpickling ask for attributes before there is an objective.
    if name.startswith("_") or name == "objective":
      raise AttributeError(name)
    return getattr(self.objective, name)

  @property
  def batch_keys(self) -> tuple[str, ...]:  # type: ignore[override]
    """Keys of the batch that `loss` reads: the objective's and `task`."""
    return (*self.objective.batch_keys, "task")

  @property
  def couples_examples(self) -> bool:  # type: ignore[override]
    """Whether the objective couples the examples of a batch."""
    return self.objective.couples_examples

  def parts(self) -> dict[str, Part]:
    """Returns the objective's, whose state is a part of this one."""
    inside = lambda path: None if path is None else f"objective/{path}".rstrip("/")
    paths = ("state", "teacher", "teacher_state")
    moved = lambda part: part._replace(**{key: inside(getattr(part, key)) for key in paths})
    return {name: moved(part) for name, part in self.objective.parts().items()}

  def encode(self, params: Params, state: State, batch: Batch) -> dict[str, Array]:
    """Returns what the objective returns."""
    return self.objective.encode(params, state["objective"], batch)

  def post_update(self, params: Params, state: State, *, step: Array) -> tuple[Params, State]:
    """Returns parameters and state after the objective's `post_update`."""
    params, inner = self.objective.post_update(params, state["objective"], step=step)
    return params, {**state, "objective": inner}

  def show(self, params: Params, state: State, batch: Batch, *, rng: Array) -> dict[str, Array]:
    """Returns the objective's pictures."""
    return self.objective.show(params, state["objective"], batch, rng=rng)
