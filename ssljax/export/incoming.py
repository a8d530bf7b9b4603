"""Foreign weights as arrays of ours: sizes compared, names mapped, the outputs compared, positions resized."""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from ssljax.errors import UserError
from ssljax.export import weights
from ssljax.export.gate import TOLERANCE, Comparison, compare
from ssljax.export.peer import Modules, Peer
from ssljax.export.table import Line, to_ours

Arrays = Mapping[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]
_SAME = 1e-5  # fixed positions computed elsewhere differ by rounding alone


class Incoming(NamedTuple):
  """What came in.

  Attributes:
    arrays: by our paths.
    comparison: how their outputs and ours differ.
    left: names of theirs that stayed behind.
    resized: what was done to positions, in words; empty where nothing.
  """

  arrays: dict[str, np.ndarray]
  comparison: Comparison
  left: list[str]
  resized: str


def read(place: pathlib.Path, peer: Peer, modules: Modules, shapes: Shapes, inputs: Arrays) -> Incoming:
  """Returns a peer's weights as ours.

  Args:
    place: a folder, or a file of weights.
    peer: the class they are of.
    modules: our networks, which they have to fit; learnt positions may be of another picture size.
    shapes: of our arrays by path.
    inputs: real inputs for both libraries.

  Raises:
    UserError: other sizes, arrays that are missing or too many, outputs that differ.
  """
  theirs, config = peer.renamed(weights.read(place)), peer.read_config(str(place))
  original = {name: _of_size(module, config, peer) for name, module in modules.items()}
  _check_sizes(place, peer, original, config)
  constants = peer.constants(original)
  _check_constants(constants, theirs)
  rest = {name: array for name, array in theirs.items() if name not in constants}
  wanted = {name: shape for name, shape in shapes.items() if name.split("/")[0] in (peer.takes or modules)}
  wanted |= {name: shape for name, shape in _position_shapes(original, shapes).items() if name in wanted}
  table = peer.table(original, wanted)
  arrays = to_ours(table, rest, wanted, leave=peer.leave)
  seen = compare(peer, peer.load(str(place), original), original, arrays, _inputs_for(original, inputs))
  if not seen.passes:
    where = f", first in {seen.layer}" if seen.layer else ""
    raise UserError(
      f"--from: {peer.name} of {place} gives other numbers than these networks do with its weights: they differ by "
      f"{seen.largest:.2g}{where}, at most {TOLERANCE:g} is allowed"
    )
  resized = [_resize(arrays, name, original[name], module) for name, module in modules.items()]
  return Incoming(arrays, seen, sorted(set(rest) - _taken(table, wanted)), "; ".join(filter(None, resized)))


def _taken(table: list[Line], shapes: Shapes) -> set[str]:
  return {name for line in table for name in line.names(shapes[line.ours]).values()}


def _of_size(module: nn.Module, config: Mapping[str, Any] | None, peer: Peer) -> nn.Module:
  """Returns the network for the picture size that their config names; a decoder stays, it has no size of its own."""
  key = next((theirs for theirs, ours in peer.keys.items() if ours == "image_size"), "")
  size = (config or {}).get(key)
  if not isinstance(size, int) or size == getattr(module, "image_size", size):
    return module
  return module.clone(image_size=size)


def _position_shapes(modules: Modules, shapes: Shapes) -> Shapes:
  """Returns the shapes of learnt tables of positions for the networks' picture sizes."""
  found = {}
  for name, module in modules.items():
    if (place := f"{name}/params/pos_embed") in shapes:
      first = int(module.cls_token == "learnt")
      found[place] = (1, first + module.grid[0] * module.grid[1], shapes[place][-1])
  return found


def _check_sizes(place: pathlib.Path, peer: Peer, modules: Modules, config: Mapping[str, Any] | None) -> None:
  """Raises UserError with every size that differs, and the keys of ours that say otherwise."""
  expected = peer.config(modules)
  part = "model" if "model" in modules else "encoder"
  wrong = [
    f"{theirs} {config[theirs]}, not {expected[theirs]} (objective.{part}.{ours})"
    for theirs, ours in peer.keys.items()
    if config and theirs in config and theirs in expected and config[theirs] != expected[theirs]
  ]
  if wrong:
    raise UserError(f"--from: {place} has {'; '.join(wrong)}")


def _check_constants(constants: Arrays, theirs: Arrays) -> None:
  for name, table in constants.items():
    found = theirs.get(name)
    if found is not None and (found.shape != table.shape or np.max(np.abs(found - table)) > _SAME):
      raise UserError(f"--from: {name} {list(found.shape)} is not the sine-cosine table: set positions=learnt")


def _inputs_for(modules: Modules, inputs: Arrays) -> Arrays:
  """Returns the inputs with pictures of the size the encoder wants."""
  size = getattr(modules.get("encoder"), "image_size", None)
  if size is None or "image" not in inputs or inputs["image"].shape[1] == size:
    return inputs
  pictures = inputs["image"]
  return {**inputs, "image": np.asarray(jax.image.resize(pictures, (len(pictures), size, size, 3), "cubic"))}


def _resize(arrays: dict[str, np.ndarray], name: str, before: nn.Module, after: nn.Module) -> str:
  """Returns what was done to a learnt table of positions of another picture size; it is resized in place."""
  place = f"{name}/params/pos_embed"
  if place not in arrays or before.grid == after.grid:
    return ""
  table, (rows, columns) = arrays[place], before.grid
  first = table.shape[1] - rows * columns
  patches = table[0, first:].reshape(rows, columns, -1)
  patches = np.asarray(jax.image.resize(patches, (*after.grid, patches.shape[-1]), "cubic"))
  arrays[place] = np.concatenate([table[:, :first], patches.reshape(1, -1, patches.shape[-1])], axis=1)
  return f"{place} resized from {before.grid} to {after.grid} patches, bicubic"
