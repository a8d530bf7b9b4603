"""Pairs of pictures and captions in a file of JSON lines: `pairs:FILE.jsonl`.

A line is {"image": "path below the file's folder" or "bytes": "base64", "caption": "..." or "captions": ["...", ...]},
with, if there are any, "label": the name of its class and "group": what must not part between train and test. By
default this is the picture: its path or its bytes. A line that is no pair is a corrupt record, like a broken picture.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ssljax.data.decode import MAX_BYTES, CorruptRecord
from ssljax.data.pair_line import MAX_LINE, Pair, parse
from ssljax.data.source import Item, Source
from ssljax.errors import UserError


def open_all(where: str, *, image_size: int) -> "PairSource":
  """Returns the pairs in a file, which is read once now: where its lines lie is held, not what they say.

  Raises:
    UserError: no such file, one of whose lines none is a pair, or lines with and without a label.
  """
  return PairSource(Path(where).expanduser(), image_size=image_size)


class PairSource(Source):
  """The lines of a file in their order; empty ones are passed over."""

  has_captions = True

  def __init__(self, file: Path, *, image_size: int):
    self.file, self.image_size = file, image_size
    self.root = os.path.realpath(file.parent)
    spans, labels, self.groups = [], [], []
    with _open(file) as lines:
      self.identity = _identity(lines)
      for number, start, line in _lines(lines):
        label, group = self._indexed(number, line)
        spans.append((start, start + len(line or b""), number))
        labels.append(label)
        self.groups.append(group)
    self.spans = np.array(spans, np.int64).reshape(-1, 3)
    self._label(labels)

  def _indexed(self, number: int, line: bytes | None) -> tuple[str | CorruptRecord | None, str]:
    try:
      pair = parse(line)
      return pair.label, pair.group
    except CorruptRecord as error:
      return error, f"line {number}"

  def _label(self, found: list[str | CorruptRecord | None]) -> None:
    good = [i for i, label in enumerate(found) if not isinstance(label, CorruptRecord)]
    if found and not good:
      number = self.spans[0, 2]
      raise UserError(f"data source: {self.file}: none of {len(found)} lines is a pair, line {number}: {found[0]}")
    without = [i for i in good if found[i] is None]
    if len(without) == len(good):
      return
    if without:
      number = self.spans[without[0], 2]
      raise UserError(f"data source: {self.file}: line {number} has no label, expected one: other lines have")
    self.class_names = tuple(sorted({found[i] for i in good}))
    self.num_classes = len(self.class_names)
    numbers = {name: number for number, name in enumerate(self.class_names)}
    self.labels = np.array([0 if isinstance(name, CorruptRecord) else numbers[name] for name in found], np.int32)

  def __len__(self) -> int:
    return len(self.spans)

  def fetch(self, rows: np.ndarray) -> tuple[Sequence[Item], np.ndarray | None]:
    """Returns the bytes of the pictures and their labels."""
    items = [pair if isinstance(pair, CorruptRecord) else self._picture(pair) for pair in self._pairs(rows)]
    return items, None if self.num_classes is None else self.labels[rows]

  def captions(self, rows: np.ndarray) -> list[tuple[str, ...]]:
    """Returns the captions of the lines."""
    return [() if isinstance(pair, CorruptRecord) else pair.captions for pair in self._pairs(rows)]

  def name(self, row: int) -> str:
    """Returns FILE:LINE."""
    return f"{self.file}:{self.spans[row, 2]}"

  def group(self, row: int) -> str:
    """Returns the group in the line, else its picture."""
    return self.groups[row]

  def _pairs(self, rows: np.ndarray) -> Iterator[Pair | CorruptRecord]:
    with _open(self.file) as lines:
      if _identity(lines) != self.identity:
        raise UserError(f"data source: {self.file} has changed since it was opened, expected it to stay; start again")
      for start, stop, _ in self.spans[np.asarray(rows, np.int64)].tolist():
        try:
          yield parse(os.pread(lines.fileno(), stop - start, start) or None)
        except CorruptRecord as error:
          yield error

  def _picture(self, pair: Pair) -> Item:
    try:
      return pair.picture() if pair.path is None else read_below(self.root, pair.path)
    except CorruptRecord as error:
      return error
    except OSError as error:
      return CorruptRecord(f"image: {str(pair.path)[:100]!r}: {error.strerror or type(error).__name__}")


def read_below(root: str, path: str) -> bytes:
  """Returns at most 64 MiB + 1 bytes of the file at a path below a folder, which is real (without links).

  Raises:
    CorruptRecord: the path leads out of the folder, through a link, or to something that is no file.
    OSError: it cannot be read.
  """
  real = os.path.realpath(os.path.join(root, path))
  if os.path.commonpath([root, real]) != root:
    raise CorruptRecord(f"image: {path[:100]!r} leads out of the file's folder")
  # Without O_NONBLOCK to open a pipe waits until somebody writes to it.
  descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
  try:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
      raise CorruptRecord(f"image: {path[:100]!r} is no file")
    with open(descriptor, "rb", closefd=False) as file:
      return file.read(MAX_BYTES + 1)
  finally:
    os.close(descriptor)


def _open(file: Path) -> BinaryIO:
  if file.exists() and not file.is_file():
    raise UserError(f"data source: {file}: found a folder, expected a file of JSON lines")
  try:
    return open(file, "rb")
  except OSError as error:
    raise UserError(f"data source: {file}: {error.strerror}, expected a readable file of JSON lines") from None


def _identity(file: BinaryIO) -> tuple[int, int]:
  found = os.fstat(file.fileno())
  return found.st_size, found.st_mtime_ns


def _lines(file: BinaryIO) -> Iterator[tuple[int, int, bytes | None]]:
  """Yields (number from 1, first byte, line) of each line with something in it; None: one that is too long to hold."""
  number = start = 0
  while line := file.readline(MAX_LINE + 1):
    number, length, held = number + 1, len(line), line if len(line) <= MAX_LINE else None
    while held is None and not line.endswith(b"\n") and (line := file.readline(2**20)):
      length += len(line)
    if held is None or held.strip():
      yield number, start, held
    start += length
