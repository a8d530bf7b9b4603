"""Checkpoints: the whole TrainState, the step, the resolved config and a checksum per leaf. The only user of Orbax.

Orbax writes to a temporary folder and renames it, so a step that is listed at start-up is complete. It does not notice
a flipped bit in the arrays, so each leaf's checksum (`tree.fold`, equal on any mesh) is stored and verified on restore.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import absl.logging
import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from ssljax import distributed, tree
from ssljax.errors import UserError
from ssljax.types import PyTree

_MOST_NAMED = 3  # differing leaves spelled out in one error line; the rest are counted
_checksums = jax.jit(tree.fold)


class Checkpoints:
  """The checkpoints of one work directory.

  Args:
    directory: `WORKDIR/checkpoints`; made if missing.
    keep: how many of the newest are kept.
    keep_every: a step that is a multiple of it is kept for ever; None: none is.
    keep_steps: steps that are kept for ever.
  """

  def __init__(
    self,
    directory: pathlib.Path,
    *,
    keep: int = 2,
    keep_every: int | None = None,
    keep_steps: Sequence[int] = (),
  ):
    absl.logging.set_verbosity(absl.logging.ERROR)
    policies: list[Any] = [checkpoint_managers.LatestN(keep)]
    if keep_every:
      policies.append(checkpoint_managers.EveryNSteps(keep_every))
    if keep_steps:
      policies.append(checkpoint_managers.CustomSteps(list(keep_steps)))
    options = ocp.CheckpointManagerOptions(
      preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
      cleanup_tmp_directories=True,
      save_decision_policy=checkpoint_managers.FixedIntervalPolicy(1),  # the loop decides when
    )
    self.directory = directory.absolute()
    handlers = {"state": ocp.StandardCheckpointHandler(), "meta": ocp.JsonCheckpointHandler()}
    self._manager = ocp.CheckpointManager(self.directory, options=options, item_handlers=handlers)
    self._committed = list(self._manager.all_steps())

  def steps(self) -> list[int]:
    """Returns the committed steps, oldest first."""
    return sorted(self._committed)

  def save(self, step: int, state: PyTree, *, config: Mapping[str, Any]) -> None:
    """Starts writing; returns once the state is copied to the host, so it may be donated right after."""
    self.wait()
    sums = {name: distributed.to_host(value).tolist() for name, value in tree.named_leaves(_checksums(state))}
    meta = {"step": step, "config": dict(config), "checksums": sums}
    self._manager.save(step, args=ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta)))

  def wait(self) -> None:
    """Blocks until what was saved is committed."""
    self._manager.wait_until_finished()
    self._committed = list(self._manager.all_steps())

  def meta(self, step: int) -> dict[str, Any]:
    """Returns what was saved beside the state: "step", "config", "checksums"."""
    return self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]

  def restore(self, step: int, like: PyTree) -> PyTree:
    """Returns the state of a step, on the shardings of `like`.

    Args:
      step: a committed step.
      like: the state's tree of ShapeDtypeStruct with shardings.

    Raises:
      UserError: paths, shapes or dtypes differ (the first few are named: found and expected).
      CorruptCheckpoint: it cannot be read, or a leaf's checksum is not the one stored.
    """
    saved = self._saved(step)
    _compare(saved, like, place=f"{self.directory}/{step}")
    return self._verified(step, like)

  def restore_parts(self, step: int, like: PyTree) -> dict[str, Any]:
    """Returns the leaves of a step by path, as they were saved; those `like` has too lie as it says.

    Args:
      step: a committed step.
      like: a tree of ShapeDtypeStruct with shardings; it may have other leaves.

    Raises:
      CorruptCheckpoint: as for `restore`.
    """
    expected = dict(tree.named_leaves(like))
    mesh = next(iter(expected.values())).sharding.mesh
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

    def placed(name: str, leaf: Any) -> jax.ShapeDtypeStruct:
      same = name in expected and expected[name].shape == leaf.shape
      return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=expected[name].sharding if same else everywhere)

    target = tree.map_named(placed, self._saved(step))
    return dict(tree.named_leaves(self._verified(step, target)))

  def _saved(self, step: int) -> PyTree:
    """Returns the shapes and dtypes of what was saved."""
    try:
      return _metadata_tree(self._manager.item_metadata(step)["state"])
    except Exception as error:
      raise CorruptCheckpoint(f"{self.directory}/{step}: cannot be read ({_first_line(error)})") from error

  def _verified(self, step: int, like: PyTree) -> PyTree:
    """Returns the state of a step, its checksums compared with those stored."""
    try:
      meta = self.meta(step)
      restored = self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(like)))["state"]
    except Exception as error:
      raise CorruptCheckpoint(f"{self.directory}/{step}: cannot be read ({_first_line(error)})") from error
    found = tree.named_leaves(_checksums(restored))
    wrong = [name for name, value in found if distributed.to_host(value).tolist() != meta["checksums"].get(name)]
    if wrong:
      raise CorruptCheckpoint(f"{self.directory}/{step}: checksum differs in {_few(wrong)}")
    return restored

  def restore_latest(self, like: PyTree, *, warn: Any = print) -> tuple[int, PyTree] | None:
    """Returns (step, state) of the newest checkpoint that is whole, None if there is none at all.

    A corrupt one is told to `warn` and left where it is; the one before is taken.

    Raises:
      UserError: all are corrupt, or one is of another shape.
    """
    for step in reversed(self.steps()):
      try:
        return step, self.restore(step, like)
      except CorruptCheckpoint as error:
        warn(f"warning: {error}; trying the checkpoint before it")
    if self.steps():
      count = len(self.steps())
      raise UserError(f"{self.directory}: none of the {count} checkpoints can be read; the warnings above say why")
    return None

  def set_aside_after(self, step: int) -> None:
    """Moves the checkpoints after `step` aside (`STEP.corrupt`): a run that goes on from `step` writes them anew."""
    if distributed.is_main():
      for later in [s for s in self.steps() if s > step]:
        (self.directory / str(later)).rename(_unused(self.directory / f"{later}.corrupt"))
    distributed.barrier("checkpoints set aside")
    self._manager.reload()
    self._committed = list(self._manager.all_steps())

  def close(self) -> None:
    """Waits for the last save and stops the writer."""
    self.wait()
    self._manager.close()


class CorruptCheckpoint(UserError):
  """A checkpoint that cannot be read or whose bits changed since it was written."""


def _unused(path: pathlib.Path) -> pathlib.Path:
  candidates = (path if n == 0 else path.with_name(f"{path.name}{n}") for n in range(1000))
  return next(candidate for candidate in candidates if not candidate.exists())


def _compare(saved: Any, like: PyTree, *, place: str) -> None:
  """Raises UserError where the saved tree is not the expected one; Orbax itself casts dtypes silently."""
  found = {name: _shape(leaf) for name, leaf in tree.named_leaves(saved)}
  expected = {name: _shape(_stored(leaf)) for name, leaf in tree.named_leaves(like)}
  problems = [
    f"{name} found {found[name]} expected {expected[name]}"
    for name in expected
    if name in found and found[name] != expected[name]
  ]
  problems += [f"{name} is missing" for name in expected if name not in found]
  problems += [f"{name} is not expected" for name in found if name not in expected]
  if problems:
    raise UserError(f"{place}: checkpoint of another shape: {_few(problems, '; ')}")


def _metadata_tree(saved: Any) -> Any:
  return saved.tree if hasattr(saved, "tree") else saved


def _stored(leaf: Any) -> Any:
  """Returns the leaf as Orbax stores it: a typed key as its words."""
  return jax.eval_shape(jax.random.key_data, leaf) if tree.is_key_array(leaf) else leaf


def _shape(leaf: Any) -> str:
  return f"{leaf.dtype}{list(leaf.shape)}"


def _few(problems: list[str], separator: str = ", ") -> str:
  rest = len(problems) - _MOST_NAMED
  return separator.join(problems[:_MOST_NAMED]) + (f"{separator}and {rest} more" if rest > 0 else "")


def _first_line(error: Exception) -> str:
  return (str(error).splitlines() or [type(error).__name__])[0][:200]
