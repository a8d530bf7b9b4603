"""Pictures in one .npz file: `image` (or `images`, `x`) uint8 and, if there, `label` (or `labels`, `y`)."""

import functools
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssljax.data.source import Item, Source
from ssljax.errors import UserError

MAX_BYTES = 16 * 2**30
IMAGE_KEYS = ("image", "images", "x")
LABEL_KEYS = ("label", "labels", "y")


def open_all(where: str, *, image_size: int) -> "ArraySource":
  """Returns the pictures in a .npz file; nothing in it is ever unpickled.

  Raises:
    UserError: no such file, no .npz, no picture array, or a wrong type, shape or length.
  """
  return NpzSource(where, image_size=image_size)


class ArraySource(Source):
  """Pictures held in memory: `arrays` gives uint8[N,H,W] or uint8[N,H,W,C] and int[N] or None."""

  lazy = ("arrays",)
  arrays: tuple[np.ndarray, np.ndarray | None]

  def __len__(self) -> int:
    return len(self.arrays[0])

  def fetch(self, rows: np.ndarray) -> tuple[Sequence[Item], np.ndarray | None]:
    """Returns the pictures as they are held, and their labels."""
    images, labels = self.arrays
    return list(images[rows]), None if labels is None else labels[rows]

  def group(self, row: int) -> str:
    """Returns the row number: pictures appended later move no earlier one."""
    return str(row)


class NpzSource(ArraySource):
  """A .npz file; each process reads it once."""

  def __init__(self, path: str, *, image_size: int):
    self.path, self.image_size = path, image_size
    labels = self.arrays[1]
    self.num_classes = None if labels is None else int(labels.max(initial=-1)) + 1

  @functools.cached_property
  def arrays(self) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the pictures and the labels, checked."""
    return load(self.path)

  def name(self, row: int) -> str:
    """Returns FILE[row]."""
    return f"{self.path}[{row}]"


def load(path: str) -> tuple[np.ndarray, np.ndarray | None]:
  """Returns (uint8[N,H,W] or uint8[N,H,W,C], int32[N] or None) from a .npz file, checked."""
  file = Path(path).expanduser()
  if not file.is_file():
    raise UserError(f"data source: npz:{path}: found {'a directory' if file.is_dir() else 'nothing'}, expected a file")
  try:
    with zipfile.ZipFile(file) as archive:
      size = sum(info.file_size for info in archive.infolist())
    if size > MAX_BYTES:
      raise UserError(
        f"data source: npz:{path} unpacks to {size} bytes, limit {MAX_BYTES}; use a folder or ArrayRecord"
      )
    with np.load(file, allow_pickle=False) as arrays:
      image, label = (_first(arrays, keys) for keys in (IMAGE_KEYS, LABEL_KEYS))
  except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
    raise UserError(f"data source: npz:{path} cannot be read: {str(error).splitlines()[0]}") from None
  return _check_image(image, path), _check_label(label, image, path)


def _first(arrays: np.lib.npyio.NpzFile, keys: tuple[str, ...]) -> np.ndarray | None:
  return next((arrays[key] for key in keys if key in arrays), None)


def _check_image(image: np.ndarray | None, path: str) -> np.ndarray:
  if image is None:
    raise UserError(f"data source: npz:{path} holds none of the arrays {', '.join(IMAGE_KEYS)}")
  good = image.ndim == 3 or (image.ndim == 4 and image.shape[3] in (1, 3, 4))
  if image.dtype != np.uint8 or not good or 0 in image.shape[1:]:
    found = f"{image.dtype}{list(image.shape)}"
    raise UserError(f"data source: npz:{path}: image is {found}, expected uint8[N,H,W] or uint8[N,H,W,C], C = 1, 3, 4")
  return image


def _check_label(label: np.ndarray | None, image: np.ndarray, path: str) -> np.ndarray | None:
  if label is None:
    return None
  if label.dtype.kind not in "iu" or label.shape != image.shape[:1]:
    found = f"{label.dtype}{list(label.shape)}"
    raise UserError(f"data source: npz:{path}: label is {found}, expected integers[{len(image)}]")
  if label.size and (label.min() < 0 or label.max() >= 2**31):
    raise UserError(f"data source: npz:{path}: label spans {label.min()} to {label.max()}, expected 0 to classes - 1")
  return label.astype(np.int32)
