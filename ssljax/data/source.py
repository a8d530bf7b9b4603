"""What a source of pictures is, and `open_source`, which opens one from its name in a config."""

import abc
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssljax.data import split as splits
from ssljax.data.decode import CorruptRecord, Picture, canvas, decode
from ssljax.errors import UserError, nearest

KINDS = ("arrayrecord", "embedded", "folder", "npz", "pairs", "tfds", "webdataset")
CAPTIONED = ("pairs:FILE.jsonl", "webdataset:GLOB", "arrayrecord:DIR of such", "embedded:emoji_pairs")

Item = bytes | np.ndarray | CorruptRecord


class Records(NamedTuple):
  """One read of n rows.

  Attributes:
    arrays: `image` uint8[n,S,S,3], `aspect` f32[n] (original width / height) and, when labelled, `label` int32[n].
    errors: position in [0, n) -> reason, for each record that could not be decoded. Its image is black, its aspect 1.
  """

  arrays: dict[str, np.ndarray]
  errors: dict[int, str]


class Source(abc.ABC):
  """Pictures by row number. A subclass gives `__len__`, `fetch` and `name`; everything else follows.

  Sources cross process boundaries, so what they open lazily must be listed in `lazy` and is dropped by pickling.

  Attributes:
    image_size: S, the side of the canvas in pixels.
    class_names: the classes in label order, or None when the source has labels without names or no labels.
    num_classes: the number of classes, or None without labels.
    has_captions: whether its pictures have texts that say what they show.
    licence: the licence of the pictures, "unknown" when nobody said.
    own_splits: the source's own splits, name -> rows; empty when it has none.
  """

  image_size: int
  class_names: tuple[str, ...] | None = None
  num_classes: int | None = None
  has_captions: bool = False
  licence: str = "unknown"
  own_splits: Mapping[str, splits.Rows] = {}
  lazy: tuple[str, ...] = ()

  @abc.abstractmethod
  def __len__(self) -> int:
    """Returns the number of records."""

  @abc.abstractmethod
  def fetch(self, rows: np.ndarray) -> tuple[Sequence[Item], np.ndarray | None]:
    """Returns one item a row (encoded bytes, a uint8 picture, or a CorruptRecord) and int32[n] labels or None."""

  @abc.abstractmethod
  def name(self, row: int) -> str:
    """Returns what to call a record in a log: its file path or its key."""

  def captions(self, rows: np.ndarray) -> list[tuple[str, ...]]:
    """Returns the captions of each row, none of them empty; () where a record has none or cannot be read."""
    return [()] * len(rows)

  def group(self, row: int) -> str:
    """Returns the name whose hash decides between train and test; records of one group never part."""
    return self.name(row)

  @property
  def keys(self) -> tuple[str, ...]:
    """Returns the names of the arrays that `read` gives."""
    return ("image", "aspect") if self.num_classes is None else ("image", "aspect", "label")

  def read(self, rows: np.ndarray) -> Records:
    """Returns the records at `rows` int64[n], decoded; one that is corrupt is reported and costs only itself."""
    items, labels = self.fetch(np.asarray(rows, np.int64))
    image = np.zeros((len(items), self.image_size, self.image_size, 3), np.uint8)
    aspect = np.ones(len(items), np.float32)
    errors = {}
    for i, item in enumerate(items):
      try:
        image[i], width, height = _picture(item, self.image_size)
        aspect[i] = width / height
      except CorruptRecord as error:
        errors[i] = str(error)
    arrays = {"image": image, "aspect": aspect}
    if labels is not None:
      arrays["label"] = np.asarray(labels, np.int32)
    return Records(arrays, errors)

  def __getstate__(self):
    return {key: value for key, value in self.__dict__.items() if key not in self.lazy}


class Subset(Source):
  """The rows of another source that a split selects, in their order."""

  def __init__(self, parent: Source, rows: splits.Rows):
    self.parent, self.rows = parent, rows
    self.image_size, self.licence = parent.image_size, parent.licence
    self.class_names, self.num_classes = parent.class_names, parent.num_classes
    self.has_captions = parent.has_captions

  def __len__(self) -> int:
    return len(self.rows)

  def fetch(self, rows: np.ndarray) -> tuple[Sequence[Item], np.ndarray | None]:
    """Returns what the other source gives for its rows."""
    return self.parent.fetch(splits.take(self.rows, rows))

  def captions(self, rows: np.ndarray) -> list[tuple[str, ...]]:
    """Returns the captions in the other source."""
    return self.parent.captions(splits.take(self.rows, rows))

  def name(self, row: int) -> str:
    """Returns the name in the other source."""
    return self.parent.name(self._parent_row(row))

  def group(self, row: int) -> str:
    """Returns the group in the other source."""
    return self.parent.group(self._parent_row(row))

  def _parent_row(self, row: int) -> int:
    return int(splits.take(self.rows, np.array([row]))[0])


def open_all(spec: str, *, image_size: int) -> Source:
  """Returns every record of the source named by `spec`, whatever its split; see `open_source`."""
  kind, colon, where = spec.partition(":")
  if kind == "text":
    raise UserError(f"data source: {spec} holds text, expected pictures: one of {', '.join(KINDS)}")
  if kind not in KINDS:
    raise UserError(f"data source: unknown kind {nearest(kind, KINDS)}, in {spec!r}")
  if not colon or not where:
    raise UserError(f"data source: {spec!r} names no data, expected {kind}:{_EXAMPLES[kind]}")
  if image_size < 1:
    raise UserError(f"image_size: found {image_size}, expected at least 1 pixel")
  source = importlib.import_module(f"ssljax.data.{kind}").open_all(where, image_size=image_size)
  if not len(source):
    raise UserError(f"data source: {spec} holds no records")
  return source


def open_source(spec: str, *, split: str = "train", image_size: int) -> Source:
  """Returns the records of one split of a source.

  Args:
    spec: "embedded:NAME", "folder:DIR", "npz:FILE", "arrayrecord:GLOB", "pairs:FILE.jsonl", "webdataset:GLOB" or
      "tfds:NAME".
    split: "train", "test", "all" or a split of the source's own, with an optional slice: "train[:90%]"; see `split`.
    image_size: the side of the canvas in pixels.

  Raises:
    UserError: an unknown kind, name or split; a missing path or package; no records.
  """
  source = open_all(spec, image_size=image_size)
  rows = splits.select(split, own=source.own_splits, size=len(source), group=source.group)
  if not len(rows):
    raise UserError(f"data split: {split!r} of {spec} holds none of its {len(source)} records")
  return Subset(source, rows)


def read_each(getitems: Callable[[list[int]], Sequence[Any]], rows: list[int]) -> list[Any]:
  """Returns getitems(rows); where that fails, row by row, with a CorruptRecord in the place of each that fails."""
  try:
    return list(getitems(rows))
  except Exception as error:  # riegeli and protobuf have no common type for damaged bytes
    if len(rows) == 1:
      return [CorruptRecord(str(error).splitlines()[0][:200] if str(error) else type(error).__name__)]
    return [record for row in rows for record in read_each(getitems, [row])]


_EXAMPLES = {
  "arrayrecord": "DIR",
  "embedded": "photos",
  "folder": "DIR",
  "npz": "FILE.npz",
  "pairs": "FILE.jsonl",
  "tfds": "mnist",
  "webdataset": "'DIR/*.tar'",
}


def _picture(item: Item, size: int) -> Picture:
  if isinstance(item, CorruptRecord):
    raise item
  return decode(item, size=size) if isinstance(item, bytes) else canvas(item, size=size)
