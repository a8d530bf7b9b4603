"""Pictures or pairs in ArrayRecord shards, as `ssljax data prepare` writes them: for large sets and network disks.

A record is: 4 bytes "SSJ1", the label as a little-endian int32 (-1 without labels), the length of the name in bytes as
a uint16, the name in UTF-8, and the encoded picture up to the end. In a set of pairs it begins with "SSJ2", and the
length of the captions in bytes as a uint32 and the captions as a JSON list stand between the name and the picture.
Beside the shards lies manifest.json: counts, sizes in bytes, SHA-256 of each shard, class names, licence, splits.
"""

import functools
import glob
import json
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssljax.data import pair_line
from ssljax.data.decode import CorruptRecord
from ssljax.data.source import Item, Source, read_each
from ssljax.errors import UserError

MANIFEST = "manifest.json"
PICTURES, PAIRS = "ssljax-arrayrecord-1", "ssljax-arrayrecord-2"
_HEADER = struct.Struct("<4siH")
_LENGTH = struct.Struct("<I")
_MAGIC, _MAGIC_PAIR = b"SSJ1", b"SSJ2"


class Record(NamedTuple):
  """A record: the encoded picture, its label (-1 without labels), its name and, in a set of pairs, its captions."""

  picture: bytes
  label: int
  name: str
  captions: tuple[str, ...] | None = None


def pack(record: Record) -> bytes:
  """Returns a record as bytes."""
  name = record.name.encode("utf-8", "surrogateescape")[-65535:]
  if record.captions is None:
    return _HEADER.pack(_MAGIC, record.label, len(name)) + name + record.picture
  captions = json.dumps(record.captions).encode()
  return (
    _HEADER.pack(_MAGIC_PAIR, record.label, len(name)) + name + _LENGTH.pack(len(captions)) + captions + record.picture
  )


def unpack(data: bytes) -> Record:
  """Returns the record in `data`; raises CorruptRecord when it is none."""
  if len(data) < _HEADER.size or data[:4] not in (_MAGIC, _MAGIC_PAIR):
    raise CorruptRecord("not a record of this format")
  magic, label, length = _HEADER.unpack_from(data)
  start = _HEADER.size + length
  name = data[_HEADER.size : start].decode("utf-8", "replace")
  if magic == _MAGIC:
    return Record(data[start:], label, name)
  if len(data) < start + _LENGTH.size:
    raise CorruptRecord("a record that is cut short")
  stop = start + _LENGTH.size + _LENGTH.unpack_from(data, start)[0]
  return Record(data[stop:], label, name, _captions(data[start + _LENGTH.size : stop]))


def _captions(data: bytes) -> tuple[str, ...]:
  try:
    return pair_line.captions_of({"captions": json.loads(data)})
  except (ValueError, RecursionError):
    raise CorruptRecord("captions that are no list of texts") from None


def open_all(where: str, *, image_size: int) -> "ArrayRecordSource":
  """Returns the records of the shards that match a glob, or of all shards in a folder.

  Raises:
    UserError: no shard matches, the manifest is missing or broken, or a shard's size is not the manifest's.
  """
  path = Path(where).expanduser()
  matched = (
    sorted(path.glob("*.arrayrecord")) if path.is_dir() else [Path(name) for name in sorted(glob.glob(str(path)))]
  )
  if not matched:
    raise UserError(f"data source: arrayrecord:{where}: no file matches, expected a folder or shards *.arrayrecord")
  folders = {shard.parent for shard in matched}
  if len(folders) > 1:
    raise UserError(f"data source: arrayrecord:{where} matches {len(folders)} folders, expected one prepared folder")
  return ArrayRecordSource(matched[0].parent, {shard.name for shard in matched}, image_size=image_size)


def read_manifest(folder: Path) -> dict[str, Any]:
  """Returns the manifest of a prepared folder, checked for its format."""
  file = folder / MANIFEST
  try:
    manifest = json.loads(file.read_text(encoding="utf-8"))
  except FileNotFoundError:
    raise UserError(f"data source: {file} is missing, expected beside the shards (ssljax data prepare)") from None
  except (OSError, ValueError) as error:
    raise UserError(f"data source: {file} cannot be read: {str(error).splitlines()[0]}") from None
  found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
  if found not in (PICTURES, PAIRS):
    raise UserError(f"data source: {file}: format is {found!r}, expected {PICTURES!r} or {PAIRS!r}")
  return manifest


def check_shard(folder: Path, shard: Any) -> None:
  """Raises UserError unless the manifest's entry is whole and the file has the size that it tells."""
  whole = isinstance(shard, dict) and isinstance(shard.get("file"), str) and "/" not in shard["file"]
  whole = whole and all(isinstance(shard.get(key), int) and shard[key] >= 0 for key in ("records", "bytes"))
  if not whole or not re.fullmatch(r"[0-9a-f]{64}", str(shard.get("sha256"))):
    raise UserError(f"data source: {folder / MANIFEST}: broken shard entry {str(shard)[:120]!r}")
  file = folder / shard["file"]
  found = file.stat().st_size if file.is_file() else None
  if found != shard["bytes"]:
    had = "no file" if found is None else f"{found} bytes"
    raise UserError(f"data source: {file}: found {had}, the manifest tells {shard['bytes']} bytes")


class ArrayRecordSource(Source):
  """The records of prepared shards, split after split as the manifest lists them."""

  lazy = ("_reader",)

  def __init__(self, folder: Path, files: set[str], *, image_size: int):
    manifest = read_manifest(folder)
    self.image_size, self.licence = image_size, manifest.get("licence", "unknown")
    self.has_captions = manifest["format"] == PAIRS
    self.shards, self.own_splits, self.size = [], {}, 0
    for split, shards in manifest["splits"].items():
      start = self.size
      for shard in shards:
        check_shard(folder, shard)
        if shard["file"] in files:
          self.shards.append(folder / shard["file"])
          self.size += shard["records"]
      self.own_splits[split] = range(start, self.size)
    if manifest.get("num_classes") is not None:
      self.num_classes = int(manifest["num_classes"])
      self.class_names = tuple(manifest["class_names"]) if manifest.get("class_names") else None

  @functools.cached_property
  def _reader(self) -> Any:
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    reader = ArrayRecordDataSource([str(shard) for shard in self.shards])
    if len(reader) != self.size:
      raise UserError(
        f"data source: {self.shards[0].parent}: found {len(reader)} records, the manifest tells {self.size}"
      )
    return reader

  def __len__(self) -> int:
    return self.size

  def fetch(self, rows: np.ndarray) -> tuple[Sequence[Item], np.ndarray | None]:
    """Returns the encoded pictures and the labels."""
    records = self._records(rows)
    items = [record.picture if isinstance(record, Record) else record for record in records]
    labels = [record.label if isinstance(record, Record) else 0 for record in records]
    return items, None if self.num_classes is None else np.array(labels, np.int32)

  def captions(self, rows: np.ndarray) -> list[tuple[str, ...]]:
    """Returns the captions in the records."""
    return [(isinstance(record, Record) and record.captions) or () for record in self._records(rows)]

  def _records(self, rows: np.ndarray) -> list[Record | CorruptRecord]:
    return [self._record(data) for data in read_each(self._reader.__getitems__, np.asarray(rows).tolist())]

  def _record(self, data: bytes | CorruptRecord) -> Record | CorruptRecord:
    try:
      return data if isinstance(data, CorruptRecord) else unpack(data)
    except CorruptRecord as error:
      return error

  def name(self, row: int) -> str:
    """Returns the name in the record, or SHARDS[row] where it cannot be read."""
    record = self._records(np.array([row]))[0]
    return record.name if isinstance(record, Record) else f"{self.shards[0].parent}[{row}]"

  def group(self, row: int) -> str:
    """Returns the row number; a prepared set has its splits already."""
    return str(row)
