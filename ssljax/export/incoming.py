"""Foreign weights as arrays of ours: sizes compared, names mapped, the outputs compared, positions resized."""

import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

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


def read(
  place: pathlib.Path, peer: Peer, modules: Modules, shapes: Shapes, inputs: Arrays, *, fresh: Arrays | None = None
) -> Incoming:
  """Returns a peer's weights as ours.

  Args:
    place: a folder, or a file of weights.
    peer: the class they are of.
    modules: our networks, which they have to fit; learnt positions may be of another picture size.
    shapes: of our arrays by path.
    inputs: real inputs for both libraries.
    fresh: arrays for what the class does not hold of a network, by path; None: it holds all.

  Raises:
    UserError: other sizes, arrays that are missing or too many, outputs that differ.
  """
  theirs, config = peer.renamed(weights.read(place)), peer.read_config(str(place))
  original = modules if config is None else peer.sized(modules, config)
  if config is not None and (wrong := peer.other_sizes(original, config)):
    raise UserError(f"--from: {place} has {'; '.join(wrong)}")
  constants = peer.constants(original)
  _check_constants(constants, theirs)
  rest = {name: array for name, array in theirs.items() if name not in constants}
  shapes = {**shapes, **_position_shape(peer, original, shapes)}
  wanted = {name: shape for name, shape in shapes.items() if peer.holds(name)}
  table = peer.table(original, wanted)
  arrays = to_ours(table, rest, wanted, leave=peer.leave)
  whole = {name: array for name, array in (fresh or {}).items() if name not in arrays} | arrays
  seen = compare(peer, peer.load(str(place), original), original, whole, _inputs_for(peer, original, inputs))
  if not seen.passes:
    where = f", first in {seen.layer}" if seen.layer else ""
    raise UserError(
      f"--from: {peer.name} of {place} gives other numbers than these networks do with its weights: they differ by "
      f"{seen.largest:.2g}{where}, at most {TOLERANCE:g} is allowed"
    )
  resized = _resize(arrays, peer, original, modules)
  return Incoming(arrays, seen, sorted(set(rest) - _taken(table, wanted)), resized)


def _taken(table: list[Line], shapes: Shapes) -> set[str]:
  return {name for line in table for name in line.names(shapes[line.ours]).values()}


def _position_shape(peer: Peer, modules: Modules, shapes: Shapes) -> Shapes:
  """Returns the shape of a learnt table of positions for the networks' picture size, by path."""
  if not (found := peer.image_encoder(modules)) or f"{found[0]}/pos_embed" not in shapes:
    return {}
  place, vit = f"{found[0]}/pos_embed", found[1]
  first = int(vit.cls_token == "learnt")
  return {place: (1, first + vit.grid[0] * vit.grid[1], vit.features)}


def _check_constants(constants: Arrays, theirs: Arrays) -> None:
  for name, table in constants.items():
    found = theirs.get(name)
    if found is not None and (found.shape != table.shape or np.max(np.abs(found - table)) > _SAME):
      raise UserError(f"--from: {name} {list(found.shape)} is not the sine-cosine table: set positions=learnt")


def _inputs_for(peer: Peer, modules: Modules, inputs: Arrays) -> Arrays:
  """Returns the inputs with pictures of the size the encoder wants."""
  found = peer.image_encoder(modules)
  if found is None or inputs["image"].shape[1] == found[1].image_size:
    return inputs
  shape = (len(inputs["image"]), found[1].image_size, found[1].image_size, inputs["image"].shape[-1])
  return {**inputs, "image": np.asarray(jax.image.resize(inputs["image"], shape, "cubic"))}


def _resize(arrays: dict[str, np.ndarray], peer: Peer, before: Modules, after: Modules) -> str:
  """Returns what was done to a learnt table of positions of another picture size; it is resized in place."""
  found, wanted = peer.image_encoder(before), peer.image_encoder(after)
  place = found and f"{found[0]}/pos_embed"
  if not found or not wanted or place not in arrays or found[1].grid == wanted[1].grid:
    return ""
  table, (rows, columns) = arrays[place], found[1].grid
  first = table.shape[1] - rows * columns
  patches = table[0, first:].reshape(rows, columns, -1)
  patches = np.asarray(jax.image.resize(patches, (*wanted[1].grid, patches.shape[-1]), "cubic"))
  arrays[place] = np.concatenate([table[:, :first], patches.reshape(1, -1, patches.shape[-1])], axis=1)
  return f"{place} resized from {found[1].grid} to {wanted[1].grid} patches, bicubic"
