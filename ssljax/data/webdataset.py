"""Shards of webdataset and img2dataset: .tar files of NNN.jpg with NNN.txt or NNN.json and, if there are any, NNN.cls.

Only the places of the members are read when shards are opened; pictures and captions are then read where they lie, and
nothing is ever unpacked to disk. Opening reads each header, which takes a while for many shards: `ssljax data prepare`
does it once and for all.
"""

import glob
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssljax.data.decode import MAX_BYTES, CorruptRecord
from ssljax.data.pair_line import captions_of
from ssljax.data.source import Item, Source
from ssljax.data.tar_samples import TEXTS, Member, samples
from ssljax.errors import UserError

MAX_TEXT = 2**20  # bytes of a caption or of a .json
MAX_CLASSES = 10**6
_COLUMN = {name: place for place, name in enumerate(("image", *TEXTS))}
_ABSENT = Member(0, -1)


def open_all(where: str, *, image_size: int) -> "WebDataset":
  """Returns the samples of the shards that match a glob, sorted by name.

  Raises:
    UserError: no file matches, or one cannot be read or is no uncompressed .tar.
  """
  found = [Path(name) for name in sorted(glob.glob(os.path.expanduser(where), recursive=True))]
  shards = [path for path in found if path.is_file()]
  if not shards:
    raise UserError(f"data source: webdataset:{where}: no file matches, expected shards such as 'DIR/*.tar'")
  return WebDataset(shards, image_size=image_size)


class WebDataset(Source):
  """The samples of shards, shard after shard. The picture of a sample is its first member with a picture's suffix.

  It has labels where any sample has a .cls; a sample without is then corrupt.
  """

  has_captions = True

  def __init__(self, shards: list[Path], *, image_size: int):
    self.shards, self.image_size = shards, image_size
    self.names: list[str] = []
    self.damages: dict[int, str] = {}
    tables = [self._index(shard) for shard in shards]
    self.places = np.concatenate(tables)
    self.starts = np.cumsum([0] + [len(table) for table in tables])
    if (self.places[:, _COLUMN["cls"], 1] >= 0).any():
      self._label()

  def _index(self, shard: Path) -> np.ndarray:
    """Returns where the members of a shard's samples lie, int64[n,4,2]: start and size, size -1 where there is none."""
    places = []
    for sample in samples(shard):
      if sample.damage:
        self.damages[len(self.names)] = sample.damage
      places.append([sample.members.get(name, _ABSENT) for name in _COLUMN])
      self.names.append(sample.key)
    return np.array(places, np.int64).reshape(-1, len(_COLUMN), 2)

  def _label(self) -> None:
    self.labels = np.zeros(len(self), np.int32)
    for row in range(len(self)):
      try:
        self.labels[row] = _class(self._text(row, "cls"))
      except CorruptRecord as error:
        self.damages[row] = str(error)
    self.num_classes = int(self.labels.max()) + 1

  def __len__(self) -> int:
    return len(self.names)

  def fetch(self, rows: np.ndarray) -> tuple[Sequence[Item], np.ndarray | None]:
    """Returns the bytes of the pictures and the numbers in the .cls members."""
    items = [self._picture(row) for row in np.asarray(rows).tolist()]
    return items, None if self.num_classes is None else self.labels[rows]

  def captions(self, rows: np.ndarray) -> list[tuple[str, ...]]:
    """Returns what the .txt says, else `caption` or `captions` in the .json."""
    return [self._captions(row) for row in np.asarray(rows).tolist()]

  def name(self, row: int) -> str:
    """Returns SHARD/KEY."""
    return f"{self._shard(row)}/{self.names[row]}"

  def group(self, row: int) -> str:
    """Returns the shard's name without its folder and the key, so that moved shards split alike."""
    return f"{self._shard(row).name}/{self.names[row]}"

  def _shard(self, row: int) -> Path:
    return self.shards[int(np.searchsorted(self.starts, row, side="right")) - 1]

  def _picture(self, row: int) -> Item:
    try:
      return self._read(row, "image", most=MAX_BYTES)
    except CorruptRecord as error:
      return error

  def _captions(self, row: int) -> tuple[str, ...]:
    try:
      if self.places[row, _COLUMN["txt"], 1] >= 0:
        return captions_of({"caption": self._text(row, "txt").strip()})
      found = json.loads(self._text(row, "json"))
      return captions_of(found) if isinstance(found, dict) else ()
    except (CorruptRecord, ValueError, RecursionError):
      return ()

  def _text(self, row: int, kind: str) -> str:
    return self._read(row, kind, most=MAX_TEXT).decode("utf-8", "replace")

  def _read(self, row: int, kind: str, *, most: int) -> bytes:
    if row in self.damages:
      raise CorruptRecord(self.damages[row])
    start, size = self.places[row, _COLUMN[kind]].tolist()
    if not 0 <= size <= most:
      found = "nothing" if size < 0 else f"{size:,} bytes"
      raise CorruptRecord(f"found {found}, expected a .{'jpg' if kind == 'image' else kind} of at most {most:,} bytes")
    try:
      with open(self._shard(row), "rb", buffering=0) as file:
        data = os.pread(file.fileno(), size, start)
    except OSError as error:
      raise CorruptRecord(error.strerror or type(error).__name__) from None
    if len(data) < size:
      raise CorruptRecord("the shard is cut short")
    return data


def _class(text: str) -> int:
  number = text.strip()
  if not (number.isascii() and number.isdecimal() and len(number) < 10 and int(number) < MAX_CLASSES):
    raise CorruptRecord(f".cls: found {number[:40]!r}, expected the number of a class below {MAX_CLASSES:,}")
  return int(number)
