"""Pictures in a folder: one subfolder a class, optionally under train/ and test/."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssljax.data.decode import MAX_BYTES, SUFFIXES, CorruptRecord
from ssljax.data.source import Item, Source
from ssljax.errors import UserError

SPLIT_NAMES = ("train", "test", "validation", "val", "valid")


def open_all(where: str, *, image_size: int) -> "FolderSource":
  """Returns the pictures under a directory.

  When each of its subfolders is called train, test, validation, val or valid, these are its splits and classes are
  looked for one level below. The class of a picture is the first folder on its path; deeper folders do not matter.
  Where a picture lies in no class folder at all, the source has no labels. Names that begin with a dot are passed
  over, links to folders are not followed, and the order is that of the sorted paths.

  Raises:
    UserError: no such directory, or not allowed to read it.
  """
  root = Path(where).expanduser()
  if not root.is_dir():
    found = "a file" if root.exists() else "nothing"
    raise UserError(f"data source: folder:{where}: found {found}, expected a directory")
  return FolderSource(root, image_size=image_size)


class FileSource(Source):
  """Picture files: `paths` relative to `root` and, when `num_classes` is not None, `labels` int32[N]."""

  root: Path
  paths: list[str]
  labels: np.ndarray

  def __len__(self) -> int:
    return len(self.paths)

  def fetch(self, rows: np.ndarray) -> tuple[Sequence[Item], np.ndarray | None]:
    """Returns the bytes of the files and their labels."""
    return [self._bytes(row) for row in rows], None if self.num_classes is None else self.labels[rows]

  def name(self, row: int) -> str:
    """Returns the path of the file."""
    return str(self.root / self.paths[row])

  def group(self, row: int) -> str:
    """Returns the path below the root, so that a moved folder splits alike."""
    return self.paths[row]

  def _bytes(self, row: int) -> Item:
    try:
      with open(f"{self.root}/{self.paths[row]}", "rb") as file:
        return file.read(MAX_BYTES + 1)
    except OSError as error:
      return CorruptRecord(error.strerror or type(error).__name__)


class FolderSource(FileSource):
  """The pictures under `root`, sorted by split, then path."""

  def __init__(self, root: Path, *, image_size: int):
    self.root, self.image_size = root, image_size
    tops = [entry.name for entry in _entries(root) if entry.is_dir()]
    folders = [name for name in SPLIT_NAMES if name in tops] if tops and set(tops) <= set(SPLIT_NAMES) else []
    self.own_splits, self.paths = {}, []
    for name in folders or [""]:
      found = sorted(_pictures(root, name))
      self.own_splits[name] = range(len(self.paths), len(self.paths) + len(found))
      self.paths += found
    if not folders:
      self.own_splits = {}
    self._label(depth=1 if folders else 0)

  def _label(self, depth: int) -> None:
    parts = [path.split("/") for path in self.paths]
    if not parts or any(len(part) < depth + 2 for part in parts):
      return
    self.class_names = tuple(sorted({part[depth] for part in parts}))
    self.num_classes = len(self.class_names)
    number = {name: i for i, name in enumerate(self.class_names)}
    self.labels = np.array([number[part[depth]] for part in parts], np.int32)


def _entries(folder: Path) -> list[os.DirEntry]:
  try:
    return [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
  except OSError as error:
    raise UserError(f"data source: {folder}: {error.strerror}, expected a readable directory") from None


def _pictures(root: Path, below: str) -> list[str]:
  found = []
  for folder, subfolders, files in os.walk(root / below):
    subfolders[:] = [name for name in subfolders if not name.startswith(".")]
    relative = Path(folder).relative_to(root)
    for name in files:
      if name.lower().endswith(SUFFIXES) and not name.startswith("."):
        found.append((relative / name).as_posix())
  return found
