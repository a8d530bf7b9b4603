"""Sets prepared by TensorFlow Datasets as ArrayRecord, read without TensorFlow and without any network."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssljax.data.decode import CorruptRecord
from ssljax.data.source import Item, Source, read_each
from ssljax.errors import UserError, nearest

INFO = "dataset_info.json"


def open_all(where: str, *, image_size: int) -> "TfdsSource":
  """Returns a prepared set: NAME, NAME/CONFIG or NAME:VERSION in $TFDS_DATA_DIR (~/tensorflow_datasets), or a folder.

  The newest version on disk is taken where none is named. Nothing is downloaded or prepared here.

  Raises:
    UserError: not prepared on this machine, stored as TFRecord, or without an image.
  """
  return TfdsSource(where, find(where), image_size=image_size)


def find(where: str) -> Path:
  """Returns the folder of a prepared set: the one that holds dataset_info.json."""
  root = Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
  folder = Path(where).expanduser() if Path(where).expanduser().is_dir() else root / where.replace(":", "/")
  if (folder / INFO).is_file():
    return folder
  found = [path.parent for pattern in ("*", "*/*") for path in folder.glob(f"{pattern}/{INFO}")]
  if not found:
    names = [path.name for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    ask = f"prepare it with: tfds build {where} --file_format=array_record"
    raise UserError(f"data source: tfds: no prepared set {nearest(where, names)} in {root}; {ask}")
  configs = {path.parent for path in found}
  if len(configs) > 1:
    names = ", ".join(sorted(str(path.relative_to(folder.parent)) for path in configs))
    raise UserError(f"data source: tfds:{where} has several configurations, name one of {names}")
  return max(found, key=lambda path: [int(part) if part.isdecimal() else 0 for part in path.name.split(".")])


def open_builder(where: str, folder: Path) -> Any:
  """Returns the TFDS builder of a prepared folder that is stored as ArrayRecord.

  Args:
    where: what the user calls it.
    folder: what `find` found.
  """
  try:
    import tensorflow_datasets as tfds
  except ImportError:
    raise UserError(f'data source: tfds:{where} needs tensorflow-datasets: pip install "ssljax[tfds]"') from None
  builder = tfds.builder_from_directory(folder)
  stored = getattr(builder.info.file_format, "value", None)
  if stored != "array_record":
    raise UserError(f"data source: tfds:{where} is stored as {stored}, expected array_record: prepare it again")
  return builder


class TfdsSource(Source):
  """A prepared set: its splits one after the other, its image bytes as they are stored (decoded here, not by TFDS)."""

  lazy = ("_readers",)

  def __init__(self, where: str, folder: Path, *, image_size: int):
    self.where, self.folder, self.image_size = where, folder, image_size
    info = open_builder(where, folder).info
    self._describe(info)
    self.own_splits, self.starts, start = {}, [], 0
    for name in sorted(info.splits):
      self.own_splits[name] = range(start, start + info.splits[name].num_examples)
      self.starts.append(start)
      start = self.own_splits[name].stop
    self.size = start

  def _describe(self, info: Any) -> None:
    import tensorflow_datasets as tfds

    def first(kind: type) -> str | None:
      return next((name for name, feature in info.features.items() if isinstance(feature, kind)), None)

    self.image_key, self.label_key = first(tfds.features.Image), first(tfds.features.ClassLabel)
    if self.image_key is None:
      raise UserError(f"data source: tfds:{self.where} has no image, it has {', '.join(info.features)}")
    if self.label_key is not None:
      label = info.features[self.label_key]
      self.num_classes, self.class_names = label.num_classes, tuple(label.names)
    self.licence = info.redistribution_info.license or "unknown"

  @functools.cached_property
  def _readers(self) -> list[Any]:
    import tensorflow_datasets as tfds

    decoders = {self.image_key: tfds.decode.SkipDecoding()}
    builder = open_builder(self.where, self.folder)
    return [builder.as_data_source(split=name, decoders=decoders) for name in self.own_splits]

  def __len__(self) -> int:
    return self.size

  def fetch(self, rows: np.ndarray) -> tuple[Sequence[Item], np.ndarray | None]:
    """Returns the stored image bytes and the labels."""
    items: list[Item] = [b""] * len(rows)
    labels = np.zeros(len(rows), np.int32)
    which = np.searchsorted(self.starts, rows, side="right") - 1
    for split in np.unique(which):
      places = np.flatnonzero(which == split)
      for place, record in zip(places, self._records(split, rows[places] - self.starts[split]), strict=True):
        if isinstance(record, CorruptRecord):
          items[place] = record
          continue
        items[place] = record[self.image_key]
        labels[place] = record[self.label_key] if self.label_key else 0
    return items, labels if self.label_key else None

  def _records(self, split: int, rows: np.ndarray) -> Sequence[dict[str, Any] | CorruptRecord]:
    return read_each(self._readers[split].__getitems__, rows.tolist())

  def name(self, row: int) -> str:
    """Returns NAME/SPLIT[row]."""
    split = int(np.searchsorted(self.starts, row, side="right")) - 1
    return f"{self.where}/{list(self.own_splits)[split]}[{row - self.starts[split]}]"

  def group(self, row: int) -> str:
    """Returns the row number."""
    return str(row)
