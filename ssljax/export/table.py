"""A family's mapping of names and layouts: lines that are read forwards by an export and backwards by an import."""

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from einops import rearrange

from ssljax.errors import UserError

_PLACE = re.compile(r"\{(\w+)\}")
_NAMED = 3  # names spelled out in an error; the rest are counted
Arrays = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Line:
  """One array of ours and the arrays of a peer that hold the same numbers.

  `Line("blocks/attn/qkv/kernel", "blocks.{l}.attn.qkv.weight", "l i t o -> l (t o) i")` says: of the stack of layers,
  layer l is the peer's blocks.l, whose weight is (q, k, v) x in. The axes named in braces come first on the right side
  and are taken apart, one array an index; where `labels` has the axis, the index goes by its label. What is written
  forwards is read backwards, so an import undoes an export by construction. Lines with one name of theirs hold the rows
  of that array, one line's after the other's.

  Attributes:
    ours: path of the array, parts joined by "/".
    theirs: the peer's name.
    layout: einops' pattern from ours to theirs.
    sizes: lengths of axes that are grouped on the left side.
    labels: names of an axis' indices.
  """

  ours: str
  theirs: str
  layout: str = "... -> ..."
  sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)
  labels: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)

  @property
  def axes(self) -> list[str]:
    """Names of the axes that are taken apart."""
    return list(dict.fromkeys(_PLACE.findall(self.theirs)))

  @property
  def pattern(self) -> tuple[str, str]:
    """Left and right side of the layout, the axes taken apart in front where the default leaves them out."""
    left, right = self.layout.split("->")
    lead = " ".join(self.axes) if self.layout == "... -> ..." else ""
    return f"{lead} {left}".strip(), f"{lead} {right}".strip()

  def names(self, shape: Sequence[int]) -> dict[tuple[int, ...], str]:
    """Returns the peer's names by index along `axes`, for our array's shape."""
    lengths = self._lengths(shape)
    indices = itertools.product(*(range(lengths[axis]) for axis in self.axes))
    return {index: self._name(index) for index in indices}

  def forwards(self, array: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the peer's arrays by name."""
    left, right = self.pattern
    theirs = rearrange(array, f"{left} -> {right}", **self.sizes)
    return {name: np.asarray(theirs[index], order="C") for index, name in self.names(array.shape).items()}

  def backwards(self, arrays: Arrays, shape: Sequence[int]) -> np.ndarray:
    """Returns our array of this shape from the peer's, which are of the shapes `forwards` would give."""
    left, right = self.pattern
    names = self.names(shape)
    lengths = self._lengths(shape)
    stack = np.stack([arrays[name] for name in names.values()])
    stack = stack.reshape((*(lengths[axis] for axis in self.axes), *stack.shape[1:]))
    known = {axis: size for axis, size in lengths.items() if re.search(rf"\b{axis}\b", f"{left} {right}")}
    return np.asarray(rearrange(stack, f"{right} -> {left}", **known), order="C")

  def _lengths(self, shape: Sequence[int]) -> dict[str, int]:
    """Returns the lengths of the axes by name: those written alone on the left side, and `sizes`."""
    terms = re.findall(r"\([^)]*\)|\S+", self.pattern[0])
    before = terms[: terms.index("...")] if "..." in terms else terms
    alone = {term: size for term, size in zip(before, shape, strict=False) if term.isidentifier()}
    return {**alone, **self.sizes}

  def _name(self, index: tuple[int, ...]) -> str:
    parts = dict(zip(self.axes, index, strict=True))
    label = lambda axis: self.labels[axis][parts[axis]] if axis in self.labels else str(parts[axis])
    return _PLACE.sub(lambda match: label(match[1]), self.theirs)


def under(lines: Iterable[Line], *, ours: str = "", theirs: str = "") -> list[Line]:
  """Returns the lines with these in front of the names: a part of a larger model."""
  return [dataclasses.replace(line, ours=ours + line.ours, theirs=theirs + line.theirs) for line in lines]


def to_theirs(lines: Iterable[Line], ours: Arrays) -> dict[str, np.ndarray]:
  """Returns the peer's arrays by name.

  Raises:
    UserError: an array of ours that no line takes along, or a line for an array we do not have.
  """
  lines = list(lines)
  _complete({line.ours for line in lines}, set(ours), "the table", "the model")
  rows: dict[str, list[np.ndarray]] = {}
  for line in lines:
    for name, array in line.forwards(ours[line.ours]).items():
      rows.setdefault(name, []).append(array)
  return {name: parts[0] if len(parts) == 1 else np.concatenate(parts) for name, parts in rows.items()}


def to_ours(
  lines: Iterable[Line],
  theirs: Arrays,
  shapes: Mapping[str, Sequence[int]],
  *,
  leave: Callable[[str], bool] = lambda name: False,
) -> dict[str, np.ndarray]:
  """Returns our arrays by path.

  Args:
    lines: the table.
    theirs: the peer's arrays by name.
    shapes: our arrays' shapes by path.
    leave: whether an array of the peer's may stay behind, by name: its head, what it can compute.

  Raises:
    UserError: an array that is missing, of another shape, or that nothing takes along.
  """
  lines = list(lines)
  _complete({line.ours for line in lines}, set(shapes), "the table", "the model")
  wanted = {name: line for line in lines for name in line.names(shapes[line.ours]).values()}
  found = {name for name in theirs if name in wanted or not leave(name)}
  _complete(found, set(wanted), "the file", "the model")
  parts: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
  for line in lines:
    for name, array in line.forwards(np.broadcast_to(np.float32(0), shapes[line.ours])).items():
      parts.setdefault(name, []).append((line.ours, array.shape))
  own: dict[str, dict[str, np.ndarray]] = {line.ours: {} for line in lines}
  for name, holders in parts.items():
    for path, rows in _rows(name, theirs[name], holders).items():
      own[path][name] = rows
  return {line.ours: line.backwards(own[line.ours], shapes[line.ours]) for line in lines}


def _rows(name: str, array: np.ndarray, holders: list[tuple[str, tuple[int, ...]]]) -> dict[str, np.ndarray]:
  """Returns the rows of a peer's array that each of our paths has, given (path, shape of its rows) in order."""
  paths, shapes = zip(*holders, strict=True)
  expected = shapes[0] if len(shapes) == 1 else (sum(shape[0] for shape in shapes), *shapes[0][1:])
  if array.shape != expected:
    raise UserError(f"{name}: found shape {list(array.shape)}, expected {list(expected)} ({', '.join(paths)})")
  if len(paths) == 1:
    return {paths[0]: array}
  ends = itertools.accumulate(shape[0] for shape in shapes)
  return {path: array[end - shape[0] : end] for path, shape, end in zip(paths, shapes, ends, strict=True)}


def _complete(found: set[str], expected: set[str], first: str, second: str) -> None:
  """Raises UserError with what one of two sets of names lacks."""
  for names, has, lacks in ((expected - found, second, first), (found - expected, first, second)):
    if names:
      shown, rest = sorted(names)[:_NAMED], len(names) - _NAMED
      more = f" and {rest} more" if rest > 0 else ""
      raise UserError(f"weights: {has} has {', '.join(shown)}{more}, {lacks} not")
