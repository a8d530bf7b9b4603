"""The networks of a run: taken out of its state with their variables, and put back."""

from collections.abc import Mapping
from typing import Any, Literal

import jax
import numpy as np
from flax import linen as nn

from ssljax import distributed, transforms, tree
from ssljax.errors import UserError
from ssljax.types import Objective, Params, Part, TrainState

Weights = Literal["auto", "student", "ema", "teacher"]
WEIGHTS = ("auto", "student", "ema", "teacher")
Arrays = Mapping[str, np.ndarray]


def modules_of(objective: Objective) -> dict[str, nn.Module]:
  """Returns the networks by name, as they are to be compared: float32, nothing computed again."""
  return {name: plain(part.module) for name, part in objective.parts().items()}


def plain(module: nn.Module) -> nn.Module:
  """Returns the module, and those among its fields, in float32 and without recomputation."""
  changes: dict[str, Any] = {"dtype": "float32", "remat": "none"}
  fields = {key: getattr(module, key) for key in module.__dataclass_fields__ if key not in ("parent", "name")}
  kept = {
    key: changes.get(key, plain(value) if isinstance(value, nn.Module) else value) for key, value in fields.items()
  }
  return type(module)(**kept)


def take(objective: Objective, state: TrainState, weights: Weights) -> tuple[dict[str, np.ndarray], str]:
  """Returns (all arrays of the networks, which weights they are).

  Paths are "PART/params/..." and "PART/batch_stats/...". With "auto" the weights are the teacher's where the method
  has one, else the moving average where the optimiser keeps one, else the trained ones.

  Raises:
    UserError: no such weights in this run.
  """
  parts, average = objective.parts(), transforms.ema_params(state.opt_state)
  teachers = any(part.teacher is not None for part in parts.values())
  if weights == "auto":
    weights = "teacher" if teachers else "ema" if average is not None else "student"
  if weights == "teacher" and not teachers:
    raise UserError("--weights: found teacher, but this method has none (student, or ema where optimizer.ema is set)")
  if weights == "ema" and average is None:
    raise UserError("--weights: found ema, but the optimiser kept no moving average (optimizer.ema), expected student")
  params = average if weights == "ema" else state.params
  found = {}
  for name, part in parts.items():
    taught, rest = weights == "teacher" and part.teacher is not None, state.objective_state
    own = tree.at(rest, part.teacher) if taught else tree.at(params, part.params)
    stats = tree.at(rest, part.teacher_state) if taught and part.teacher_state else _statistics(part, rest)
    found |= _named(own, f"{name}/params/") | _named(stats, f"{name}/batch_stats/")
  return found, weights


def put(objective: Objective, state: TrainState, arrays: Arrays) -> TrainState:
  """Returns the state with these arrays, by the paths of `take`, in place of its own; all others stay.

  Placed as the leaves they replace. The optimiser's state is not touched.
  """
  params, rest = state.params, state.objective_state
  for name, part in objective.parts().items():
    params = _replaced(params, part.params, {key: arrays[key] for key in arrays if key.startswith(f"{name}/params/")})
    moved = {key: arrays[key] for key in arrays if key.startswith(f"{name}/batch_stats/")}
    rest = _replaced(rest, part.state, moved) if moved else rest
  return state.replace(params=params, objective_state=objective.imported(params, rest))


def shapes(objective: Objective, like: TrainState) -> dict[str, tuple[int, ...]]:
  """Returns the shapes of what `take` would give of an abstract state, by path."""
  found = {}
  for name, part in objective.parts().items():
    own = {"params": tree.at(like.params, part.params), "batch_stats": _statistics(part, like.objective_state)}
    for collection, nested in own.items():
      found |= {f"{name}/{collection}/{key}": leaf.shape for key, leaf in tree.named_leaves(nested)}
  return found


def variables(arrays: Arrays, part: str) -> dict[str, Params]:
  """Returns {"params", "batch_stats"} of one network as nested dicts, from arrays by path."""
  nested: dict[str, Any] = {}
  for name, array in arrays.items():
    first, *path, last = name.split("/")
    if first == part:
      place = nested
      for key in path:
        place = place.setdefault(key, {})
      place[last] = array
  return nested


def _statistics(part: Part, state: Any) -> Any:
  """Returns the batch statistics of a network."""
  return {} if part.state is None else tree.at(state, part.state)


def _named(nested: Any, prefix: str) -> dict[str, np.ndarray]:
  return {prefix + name: np.asarray(distributed.to_host(leaf)) for name, leaf in tree.named_leaves(nested)}


def _replaced(nested: Any, path: str, arrays: Arrays) -> Any:
  """Returns the tree whose leaves under `path` are those of `arrays`, named PART/COLLECTION/path."""
  inside = {f"{path}/{'/'.join(name.split('/')[2:])}".lstrip("/"): array for name, array in arrays.items()}

  def one(name: str, leaf: Any) -> Any:
    return jax.device_put(inside[name].astype(leaf.dtype), leaf.sharding) if name in inside else leaf

  return tree.map_named(one, nested)
