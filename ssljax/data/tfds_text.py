"""Texts in sets prepared by TensorFlow Datasets as ArrayRecord, read without TensorFlow and without any network."""

import functools
from pathlib import Path
from typing import Any

import numpy as np

from ssljax.data import cache
from ssljax.data.documents import Documents, decode
from ssljax.data.tfds import find, open_builder
from ssljax.errors import UserError


def open_all(where: str) -> "TfdsDocuments":
  """Returns the texts of a prepared set: NAME, NAME/CONFIG or NAME:VERSION, or a folder; see `tfds.open_all`.

  Raises:
    UserError: not prepared on this machine, stored as TFRecord, or without a text.
  """
  return TfdsDocuments(where, find(where))


class TfdsDocuments(Documents):
  """The first text feature of a prepared set, its splits one after the other; `replaced` and `empty` are not known."""

  lazy = ("_readers",)

  def __init__(self, where: str, folder: Path):
    self.where, self.folder = where, folder
    info = open_builder(where, folder).info
    self.key, self.licence = _text_key(where, info), info.redistribution_info.license or "unknown"
    self.own_splits, self.starts, start = {}, [], 0
    for name in sorted(info.splits):
      self.own_splits[name] = range(start, start + info.splits[name].num_examples)
      self.starts.append(start)
      start = self.own_splits[name].stop
    self.size = start
    stats = ((path.name, path.stat()) for path in sorted(folder.iterdir()))
    files = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    self.fingerprint = cache.key("tfds-1", str(folder), self.key, *files)

  @functools.cached_property
  def _readers(self) -> list[Any]:
    import tensorflow_datasets as tfds

    builder = open_builder(self.where, self.folder)
    features = builder.info.features.items()
    skipped = {name: tfds.decode.SkipDecoding() for name, kind in features if isinstance(kind, tfds.features.Image)}
    return [builder.as_data_source(split=name, decoders=skipped or None) for name in self.own_splits]

  def __len__(self) -> int:
    return self.size

  def _place(self, row: int) -> tuple[int, int]:
    split = int(np.searchsorted(self.starts, row, side="right")) - 1
    return split, int(row) - self.starts[split]

  def read(self, row: int) -> str:
    """Returns the text of a record."""
    split, number = self._place(row)
    found = self._readers[split][number][self.key]
    return decode(found)[0] if isinstance(found, bytes) else str(found)

  def name(self, row: int) -> str:
    """Returns NAME/SPLIT[row]."""
    split, number = self._place(row)
    return f"{self.where}/{list(self.own_splits)[split]}[{number}]"

  def group(self, row: int) -> str:
    """Returns the row number."""
    return str(row)


def _text_key(where: str, info: Any) -> str:
  import tensorflow_datasets as tfds

  keys = [name for name, feature in info.features.items() if isinstance(feature, tfds.features.Text)]
  if not keys:
    raise UserError(f"data source: tfds:{where} has no text, it has {', '.join(info.features)}")
  return keys[0]
