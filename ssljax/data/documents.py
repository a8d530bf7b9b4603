"""What a source of texts is, and `open_documents`, which opens one from its name in a config."""

import abc
import hashlib
import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssljax.data import split as splits
from ssljax.data.source import KINDS as PICTURE_KINDS
from ssljax.errors import UserError, nearest

KINDS = ("embedded", "text", "tfds")
_MODULES = {"embedded": "embedded_texts", "text": "textfiles", "tfds": "tfds_text"}
_EXAMPLES = {"embedded": "python", "text": "GLOB", "tfds": "NAME"}


class Documents(abc.ABC):
  """Texts by row number. What a subclass opens lazily must be listed in `lazy` and is dropped by pickling.

  Attributes:
    fingerprint: hex; another one when the texts may be others, in the names of cached files.
    licence: the licence of the texts, "unknown" when nobody said.
    own_splits: the source's own splits, name -> rows; empty when it has none.
    replaced: how many times bytes that are no UTF-8 were replaced by U+FFFD.
    empty: the documents left out because they hold nothing but white space.
    corrupt: the records left out because they hold no text.
  """

  fingerprint: str
  licence: str = "unknown"
  own_splits: Mapping[str, splits.Rows] = {}
  replaced: int = 0
  empty: int = 0
  corrupt: int = 0
  lazy: tuple[str, ...] = ()

  @abc.abstractmethod
  def __len__(self) -> int:
    """Returns the number of documents."""

  @abc.abstractmethod
  def read(self, row: int) -> str:
    """Returns the text of a document; every character of it can be written as UTF-8."""

  @abc.abstractmethod
  def name(self, row: int) -> str:
    """Returns what to call a document in a log: its file and place in it."""

  def group(self, row: int) -> str:
    """Returns the name whose hash decides between train and test; documents of one group never part."""
    return self.name(row)

  def __getstate__(self) -> dict[str, Any]:
    return {key: value for key, value in self.__dict__.items() if key not in self.lazy}


class Selected(Documents):
  """The documents of another source that a split selects, in their order; the counters are the whole source's."""

  def __init__(self, parent: Documents, rows: splits.Rows):
    self.parent, self.rows, self.licence = parent, rows, parent.licence
    self.replaced, self.empty, self.corrupt = parent.replaced, parent.empty, parent.corrupt
    self.fingerprint = _hash(parent.fingerprint, rows)

  def __len__(self) -> int:
    return len(self.rows)

  def read(self, row: int) -> str:
    """Returns the text in the other source."""
    return self.parent.read(self._parent_row(row))

  def name(self, row: int) -> str:
    """Returns the name in the other source."""
    return self.parent.name(self._parent_row(row))

  def group(self, row: int) -> str:
    """Returns the group in the other source."""
    return self.parent.group(self._parent_row(row))

  def _parent_row(self, row: int) -> int:
    return int(splits.take(self.rows, np.array([row]))[0])


def open_documents(spec: str, *, split: str = "train") -> Documents:
  """Returns the documents of one split of a source.

  Args:
    spec: "text:GLOB[,GLOB...]", "embedded:python", "embedded:docstrings" or "tfds:NAME".
    split: "train", "test", "all" or a split of the source's own, with an optional slice: "train[:90%]"; see `split`.

  Raises:
    UserError: an unknown kind, name or split; pictures; a missing path or package; no documents.
  """
  documents = open_all(spec)
  rows = splits.select(split, own=documents.own_splits, size=len(documents), group=documents.group)
  if not len(rows):
    raise UserError(f"data split: {split!r} of {spec} holds none of its {len(documents)} documents")
  return Selected(documents, rows)


def open_all(spec: str) -> Documents:
  """Returns every document of the source named by `spec`, whatever its split; see `open_documents`."""
  kind, colon, where = spec.partition(":")
  if kind not in KINDS and kind in PICTURE_KINDS:
    raise UserError(f"data source: {spec} holds pictures, expected text: text:GLOB, embedded:python or tfds:NAME")
  if kind not in KINDS:
    raise UserError(f"data source: unknown kind {nearest(kind, KINDS)}, in {spec!r}")
  if not colon or not where:
    raise UserError(f"data source: {spec!r} names no data, expected {kind}:{_EXAMPLES[kind]}")
  documents = importlib.import_module(f"ssljax.data.{_MODULES[kind]}").open_all(where)
  if not len(documents):
    raise UserError(f"data source: {spec} holds no documents")
  return documents


def decode(data: bytes) -> tuple[str, int]:
  """Returns (text, how many times bytes that are no UTF-8 were replaced by U+FFFD)."""
  try:
    return data.decode("utf-8"), 0
  except UnicodeDecodeError:
    text = data.decode("utf-8", "replace")
    return text, text.count("\ufffd") - data.count("\ufffd".encode())


def _hash(fingerprint: str, rows: splits.Rows) -> str:
  found = hashlib.blake2b(fingerprint.encode(), digest_size=16)
  for start in range(0, len(rows), 2**20):
    found.update(splits.take(rows, np.arange(start, min(start + 2**20, len(rows)))).astype("<i8").tobytes())
  return found.hexdigest()
