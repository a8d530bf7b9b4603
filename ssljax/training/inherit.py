"""What a run takes from another one, leaf by leaf: loaded, made anew, or loaded and frozen."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ssljax import tree
from ssljax.errors import UserError
from ssljax.training import state as state_lib
from ssljax.training.config import Rules
from ssljax.training.run import Run
from ssljax.transforms import layer_names
from ssljax.types import TrainState

_NAMED = 3  # leaves spelled out in a line; the rest are counted


def inherit(run: Run, saved: Mapping[str, Any], *, place: str, say: Callable[[str], None] = print) -> TrainState:
  """Returns the run's first state: what `run.job.init` loads from `saved`, the rest initialised from the seed.

  Args:
    run: what is to be trained.
    saved: another run's leaves by path.
    place: what errors call it.
    say: prints what was loaded, made anew, and left behind.

  Raises:
    UserError: a leaf to be loaded is not there or of another shape, or a rule matches nothing.
  """
  names = [name for name, _ in tree.named_leaves(run.like)]
  layers = [name for path, leaf in tree.named_leaves(run.like) for both in layer_names(path, leaf) for name in both]
  for pattern, action in run.job.init:
    if tree.first_match_of([(pattern, True)], layers if action == "freeze" else names) is None:
      raise UserError(f"init: {pattern!r} matches no path of the state, such as {names[1]}")
  fresh = state_lib.create(run.init, run.like, run.job.seed)
  anew = {name for name in names if tree.first_match(run.job.init, name, "load") == "reinit"}
  origin = {name: _origin(run.job.init, name) for name in names if name not in anew}
  wanted = [(origin[name], leaf) for name, leaf in tree.named_leaves(run.like) if name in origin]
  _check(wanted, saved, place)

  def one(name: str, value: Any, like: Any) -> Any:
    if name in anew or origin[name] == name:
      return value if name in anew else saved[name]
    # A copy: what is loaded to two places must not be one buffer, for the step gives its state away.
    return jax.device_put(jnp.copy(saved[origin[name]]), like.sharding)

  state = tree.map_named(one, fresh, run.like)
  left = sorted(set(saved) - set(origin.values()))
  made = [name for name in names if name in anew]
  say(f"from {place}: {len(names) - len(made)} leaves loaded, {_few('made anew', made)}, {_few('left behind', left)}")
  return state


def _origin(rules: Rules, name: str) -> str:
  """Returns where the leaf `name` lies in the other run: "load PATH" puts PATH in the place of what the regex finds."""
  pattern, action = next((rule for rule in rules if re.search(rule[0], name)), ("", "load"))
  return re.sub(pattern, action.removeprefix("load "), name, count=1) if action.startswith("load ") else name


def _check(wanted: list[tuple[str, Any]], saved: Mapping[str, Any], place: str) -> None:
  """Raises UserError with the leaves that are not there or of another shape."""
  wrong = []
  for name, leaf in wanted:
    if name not in saved:
      wrong.append(f"{name} is missing")
    elif (saved[name].shape, saved[name].dtype) != (leaf.shape, leaf.dtype):
      wrong.append(f"{name} found {_shape(saved[name])} expected {_shape(leaf)}")
  if wrong:
    rest = f"; and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
    hint = '(("PATH", "reinit") in init makes a leaf anew)'
    raise UserError(f"--from: {place} does not fit: {'; '.join(wrong[:_NAMED])}{rest} {hint}")


def _shape(leaf: Any) -> str:
  return f"{leaf.dtype}{list(leaf.shape)}"


def _few(what: str, names: list[str]) -> str:
  rest = len(names) - _NAMED
  listed = ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
  return f"{len(names)} {what}" + (f" ({listed})" if names else "")
