"""The one interface between a method and the trainer, and the pytrees that pass through it."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import flax
import jax
from flax import linen as nn

Array = jax.Array
PyTree = Any
Params = PyTree  # nested dict of float arrays: what the optimiser moves
State = PyTree  # nested dict of arrays the optimiser does not move: teacher, queue, centre, batch statistics
Batch = Mapping[str, Array]  # every leaf has the example on axis 0


@flax.struct.dataclass
class LossOutput:
  """What one evaluation of an objective returns.

  Attributes:
    loss: f32[], the mean over `weight` terms.
    state: the next objective state (queue, centre, batch statistics); same tree as the state given.
    metrics: scalars to log, named "group/name".
    weight: f32[], how many terms `loss` averages (tokens, masked patches). It makes gradient
      accumulation exact: microbatches are averaged with these weights.
  """

  loss: Array
  state: State
  metrics: dict[str, Array]
  weight: Array | float = 1.0


@flax.struct.dataclass
class TrainState:
  """Everything a run is, as one pytree: what is sharded, donated, checkpointed and restored.

  Attributes:
    step: i32[], optimiser steps taken.
    params: the parameters.
    opt_state: the state of the optax transformation.
    objective_state: the state of the objective.
    rng: key[], the seed key of the run; it never changes (keys are folded from it by position).
  """

  step: Array
  params: Params
  opt_state: PyTree
  objective_state: State
  rng: Array


class Part(NamedTuple):
  """A network inside of an objective and where its variables lie: what weights go out of and come in to.

  Attributes:
    module: the network.
    params: path of its parameters in the parameters, "" for all of them.
    state: path of its batch statistics in the objective's state, "" for all of it; there may be none. None where the
      state is something else.
    teacher: path in the objective's state of the moving copy of its parameters that is used after pretraining; None
      where there is none.
    teacher_state: path of the copy's own batch statistics in the objective's state; None where they are those of
      `state`.
  """

  module: nn.Module
  params: str
  state: str | None
  teacher: str | None = None
  teacher_state: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective(abc.ABC):
  """A pretraining method: one file in `objectives/`, every subclass final.

  Subclasses are frozen dataclasses; their fields are the keys of the config section `objective`.
  Arrays are global: a mean over the batch is the mean over all devices and hosts. Random numbers come
  from `rng.example_keys(rng, batch["index"])`, so they do not depend on the mesh.
  """

  batch_keys: ClassVar[tuple[str, ...]]
  """Keys of the augmented batch that `loss` reads; checked against the data before compiling."""
  couples_examples: ClassVar[bool] = False
  """True where an example's loss depends on the rest of the batch: accumulation is then refused."""

  @abc.abstractmethod
  def init(self, rng: Array, batch: Batch) -> tuple[Params, State]:
    """Returns fresh parameters and state; `batch` gives shapes and dtypes only."""

  @abc.abstractmethod
  def loss(self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array) -> LossOutput:
    """Returns the loss of a batch; `rng` is the run's key for losses, `step` the optimiser step."""

  @abc.abstractmethod
  def encode(self, params: Params, state: State, batch: Batch) -> dict[str, Array]:
    """Returns features of `batch["image"]` (f32[B,H,W,C], normalised): at least "embedding" f32[B,D]."""

  def post_update(self, params: Params, state: State, *, step: Array) -> tuple[Params, State]:
    """Returns parameters and state after the optimiser moved: EMA teacher, unit prototypes."""
    del step
    return params, state

  def parts(self) -> dict[str, Part]:
    """Returns the networks that can be exported and imported, by name.

    The default: every field that is a module, its parameters and batch statistics under the field's name.
    """
    fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
    return {name: Part(value, name, name) for name, value in fields.items() if isinstance(value, nn.Module)}

  def imported(self, params: Params, state: State) -> State:
    """Returns the state of a run whose parameters have just come in from outside: copies of them made anew.

    The default is the state itself.
    """
    del params
    return state

  def show(self, params: Params, state: State, batch: Batch, *, rng: Array) -> dict[str, Array]:
    """Returns pictures for the report by name: f32[N,K,H,W,C], N rows of K normalised images.

    The default is none. The name is the picture's caption.
    """
    del params, state, batch, rng
    return {}
