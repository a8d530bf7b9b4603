"""What a run takes from another one, leaf by leaf: loaded, made anew, or loaded and frozen."""

from collections.abc import Callable, Mapping
from typing import Any

from ssljax import tree
from ssljax.errors import UserError
from ssljax.training import state as state_lib
from ssljax.training.run import Run
from ssljax.types import Array, TrainState

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
  for pattern, _ in run.job.init:
    if not any(tree.first_match([(pattern, True)], name) for name in names):
      raise UserError(f"init: {pattern!r} matches no path of the state, such as {names[1]}")
  fresh = state_lib.create(run.init, run.like, run.job.seed)
  anew = [name for name in names if tree.first_match(run.job.init, name, "load") == "reinit"]

  def leaf(name: str, value: Array) -> Array:
    if name in anew:
      return value
    return _loaded(name, value, saved, place)

  state = tree.map_named(leaf, fresh)
  left = sorted(set(saved) - (set(names) - set(anew)))
  say(f"from {place}: {len(names) - len(anew)} leaves loaded, {_few('made anew', anew)}, {_few('left behind', left)}")
  return state


def _loaded(name: str, value: Array, saved: Mapping[str, Any], place: str) -> Array:
  if name not in saved:
    raise UserError(f'--from: {place} has no {name}; init=[("{name}", "reinit")] would make it anew')
  found = saved[name]
  if (found.shape, found.dtype) != (value.shape, value.dtype):
    expected = f"{value.dtype}{list(value.shape)}"
    raise UserError(f"--from: {place}: {name} found {found.dtype}{list(found.shape)}, expected {expected}")
  return found


def _few(what: str, names: list[str]) -> str:
  rest = len(names) - _NAMED
  listed = ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
  return f"{len(names)} {what}" + (f" ({listed})" if names else "")
