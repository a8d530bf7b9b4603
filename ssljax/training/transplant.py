"""Networks of a pretrained run carried into one that is fine-tuned."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from ssljax import tree
from ssljax.errors import UserError, nearest
from ssljax.models.heads import MLPHead, first_layers
from ssljax.training.evaluation import parameters
from ssljax.types import Objective, Params, Part, State, TrainState

Weights = dict[str, tuple[Params, State]]  # parameters and batch statistics of networks by name


def networks(objective: Objective, *, part: str, projector_layers: int) -> dict[str, Part]:
  """Returns the networks that are fine-tuned: "encoder" and, with layers of it, "projector".

  Raises:
    UserError: the objective has none of these names, or a projector of another kind.
  """
  name, *below = part.split("/")
  parts = objective.parts()
  if name not in parts:
    raise UserError(f"finetune.part: the objective has no part {nearest(name, parts)}")
  found = {"encoder": _inside(parts[name], below, part)}
  if projector_layers:
    head = parts["projector"].module if "projector" in parts else None
    if not isinstance(head, MLPHead):
      found_none = f"found {projector_layers}, expected 0: the objective has no projector"
      raise UserError(f"finetune.projector_layers: {found_none}")
    module = first_layers(head, layers=projector_layers, width=found["encoder"].module.features)
    found["projector"] = parts["projector"]._replace(module=module)
  return found


def _inside(part: Part, below: list[str], path: str) -> Part:
  """Returns a network within a part; its variables are called as the fields it lies in."""
  module: Any = part.module
  for name in below:
    module = getattr(module, name, None)
  fields = [getattr(module, name) for name in getattr(module, "__dataclass_fields__", ()) if name != "parent"]
  if not hasattr(module, "features") or any(isinstance(field, nn.Module) for field in fields):
    raise UserError(f"finetune.part: {path} is {type(module).__name__}, expected an encoder of pictures alone")
  inside = lambda place: None if place is None else "/".join(filter(None, (place, *below)))
  return Part(module, *map(inside, (part.params, part.state, part.teacher)))


def weights(parts: Mapping[str, Part], state: TrainState) -> Weights:
  """Returns parameters (the teacher's where there is one) and batch statistics of networks in a state."""
  params, rest = parameters(state), state.objective_state
  own = lambda part: tree.at(rest, part.teacher) if part.teacher is not None else tree.at(params, part.params)
  return {name: (own(part), {} if part.state is None else tree.at(rest, part.state)) for name, part in parts.items()}


def placed(state: TrainState, start: Weights) -> TrainState:
  """Returns the first state of a classifier with copies of these weights, laid as its own are."""
  params, rest = dict(state.params), dict(state.objective_state)
  for name, (found, statistics) in start.items():
    params[name], rest[name] = _like(params[name], found, name), _like(rest[name], statistics, name)
  return state.replace(params=params, objective_state=rest)


def taught(state: TrainState, teacher: TrainState) -> TrainState:
  """Returns the first state of a student with copies of a classifier's parameters and statistics as its teacher."""
  held = state.objective_state
  held = held | {"teacher": _like(held["teacher"], teacher.params, "teacher")}
  held = held | {"teacher_state": _like(held["teacher_state"], teacher.objective_state, "teacher")}
  return state.replace(objective_state=held)


def _like(own: Params, found: Params, name: str) -> Params:
  """Returns those leaves of `found` that `own` has, copied, placed as there; the first layers of a head are fewer."""
  known = dict(tree.named_leaves(found))

  def one(path: str, leaf: Any) -> Any:
    if path not in known or known[path].shape != leaf.shape:
      raise UserError(f"finetune: {name}/{path} of the run is not there or of another shape, expected {leaf.shape}")
    return jax.device_put(jnp.copy(known[path]), leaf.sharding)  # the step gives its state away

  return tree.map_named(one, own)
