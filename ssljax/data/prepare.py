"""Writes a source as ArrayRecord shards with a manifest: once, checked, whole or not at all."""

import hashlib
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssljax.data import split as splits
from ssljax.data.arrayrecord import MANIFEST, PAIRS, PICTURES, Record, pack
from ssljax.data.decode import CorruptRecord, decode, encode_png
from ssljax.data.source import Source, open_all
from ssljax.errors import UserError

_READ = 64  # records a read
_CHECK_SIZE = 8  # pixels; decoding to so little still reads each byte of the picture


class Progress(NamedTuple):
  """How far the writing is, in records, and what was left out so far ("name: reason")."""

  done: int
  total: int
  skipped: tuple[str, ...]


def prepare(source: str, out: str | Path, *, shards: int = 8, licence: str | None = None) -> Iterator[Progress]:
  """Writes every record of `source` to the new folder `out`, and yields the progress; it must be run to its end.

  Encoded pictures keep their bytes, arrays become PNG, captions lie beside their picture. Each picture is decoded once;
  one that cannot be, or that has no caption where the source has captions, is left out and named in the manifest. The
  source's own splits are kept; a source without gets train and test by hash. All is written beside `out` and renamed at
  the end, so `out` is whole or not there.

  Args:
    source: the source, as in a config: "folder:DIR", "npz:FILE", "pairs:FILE.jsonl", "webdataset:GLOB", ...
    out: the folder to make.
    shards: files a split; the records are spread over them in their order.
    licence: what to write in the manifest; by default what the source tells.

  Raises:
    UserError: `out` exists or cannot be written, or the source is wrong.
  """
  out = Path(out).expanduser()
  if shards < 1:
    raise UserError(f"shards: found {shards}, expected at least 1")
  if out.exists():
    raise UserError(f"data prepare: {out} exists; name a new folder or remove it")
  opened = open_all(source, image_size=_CHECK_SIZE)
  return _prepare(opened, out, shards=shards, licence=licence or opened.licence, origin=source)


def _prepare(source: Source, out: Path, *, shards: int, licence: str, origin: str) -> Iterator[Progress]:
  try:
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
  except OSError as error:
    raise UserError(f"data prepare: cannot write in {out.parent}: {error.strerror}") from None
  try:
    writing = _Writing(source, aside)
    names = list(source.own_splits) if len(source.own_splits) > 1 else ["train", "test"]
    for name in names:
      rows = splits.named(name, own=source.own_splits, size=len(source), group=source.group)
      yield from writing.split(name, rows, shards)
    form = PAIRS if source.has_captions else PICTURES
    manifest = {"format": form, "source": origin, "licence": licence, **writing.manifest()}
    (aside / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    os.chmod(aside, 0o755)
    os.rename(aside, out)
  except (OSError, RuntimeError) as error:  # the ArrayRecord writer reports a full disk as RuntimeError
    raise UserError(f"data prepare: writing {out} failed: {getattr(error, 'strerror', None) or error}") from None
  finally:
    shutil.rmtree(aside, ignore_errors=True)


class _Writing:
  """What accumulates while the shards are written."""

  def __init__(self, source: Source, folder: Path):
    self.source, self.folder = source, folder
    self.splits: dict[str, list[dict[str, Any]]] = {}
    self.skipped: list[str] = []
    self.smallest: list[int] = []
    self.largest: list[int] = []
    self.captions = 0
    self.done = self.written = 0

  def split(self, name: str, rows: splits.Rows, shards: int) -> Iterator[Progress]:
    shards = min(shards, len(rows))
    bounds = [len(rows) * i // shards for i in range(shards + 1)] if shards else []
    self.splits[name] = []
    for i, (start, stop) in enumerate(itertools.pairwise(bounds)):
      file = self.folder / f"{name}-{i:05d}-of-{shards:05d}.arrayrecord"
      yield from self._shard(file, splits.take(rows, np.arange(start, stop)), self.splits[name])

  def _shard(self, file: Path, rows: np.ndarray, entries: list[dict[str, Any]]) -> Iterator[Progress]:
    from array_record.python.array_record_module import ArrayRecordWriter

    writer, records = ArrayRecordWriter(str(file), "group_size:1,uncompressed"), 0
    try:
      for start in range(0, len(rows), _READ):
        for record in self._records(rows[start : start + _READ]):
          writer.write(pack(record))
          records += 1
        yield Progress(self.done, len(self.source), tuple(self.skipped))
    finally:
      writer.close()
    with open(file, "rb") as data:
      digest = hashlib.file_digest(data, "sha256").hexdigest()
    entries.append({"file": file.name, "records": records, "bytes": file.stat().st_size, "sha256": digest})

  def _records(self, rows: np.ndarray) -> Iterator[Record]:
    items, labels = self.source.fetch(rows)
    captions = self.source.captions(rows) if self.source.has_captions else [None] * len(rows)
    for i, (row, item) in enumerate(zip(rows.tolist(), items, strict=True)):
      self.done += 1
      try:
        if isinstance(item, CorruptRecord):
          raise item
        data = encode_png(item) if isinstance(item, np.ndarray) else item
        picture = decode(data, size=_CHECK_SIZE)
        if captions[i] == ():
          raise CorruptRecord("no caption")
      except CorruptRecord as error:
        self.skipped.append(f"{self.source.name(row)}: {error}")
        continue
      size = [picture.width, picture.height]
      self.smallest = [*map(min, self.smallest or size, size)]
      self.largest = [*map(max, self.largest or size, size)]
      self.written += 1
      self.captions += len(captions[i] or ())
      yield Record(data, -1 if labels is None else int(labels[i]), self.source.group(row), captions[i])

  def manifest(self) -> dict[str, Any]:
    if not self.written:
      raise UserError(f"data prepare: none of the {self.done} records can be used, first {self.skipped[0]}")
    return {
      "records": self.written,
      **({"captions": self.captions} if self.source.has_captions else {}),
      "num_classes": self.source.num_classes,
      "class_names": self.source.class_names,
      "image_size": {"min": self.smallest, "max": self.largest},
      "splits": self.splits,
      "skipped": self.skipped,
    }
