"""Which records belong to a split: explicit, deterministic, and stable when records are added.

Grammar: NAME or NAME[from:to], where NAME is "train", "test", "all" or a split of the source's own, and a bound is a
record count ("train[100:200]") or a share in per cent ("train[:90%]").

- A source with its own train and test (folders of these names, tfds, photos) is split as it says. "test" falls back
  to its validation split where there is no test.
- Otherwise, or when it has one split only, a record is in test when the hash of its group name falls in the lowest
  10 %. The hash sees the name alone, so no record changes sides when others are added.
- A slice cuts the split after a fixed shuffle of its own, so a folder that is sorted by class does not slice by class.
  "train[:90%]" and "train[90%:]" are disjoint and complete. The shuffle depends on the number of records: a slice,
  unlike train and test, is stable only while no record is added; and it cuts through groups.
"""

import dataclasses
import hashlib
import math
import re
from collections.abc import Callable, Mapping
from fractions import Fraction

import numpy as np

from ssljax.data.permutation import permute
from ssljax.errors import UserError, nearest

TEST_SHARE = 0.1
VALIDATION = ("validation", "val", "valid")
_GRAMMAR = re.compile(r"(?P<name>[\w-]+)(?:\[(?P<start>[^:\]]*):(?P<stop>[^:\]]*)\])?")
_BOUND = re.compile(r"(?P<number>\d+)|(?P<percent>\d+(?:\.\d+)?)%")


@dataclasses.dataclass(frozen=True)
class Sliced:
  """Rows `start` to `stop` of `rows` after a fixed shuffle, computed when asked: no table is held."""

  rows: range | np.ndarray
  start: int
  stop: int

  def __len__(self) -> int:
    return self.stop - self.start


Rows = range | np.ndarray | Sliced


def take(rows: Rows, index: np.ndarray) -> np.ndarray:
  """Returns the source rows int64[n] at positions `index` int64[n] of a split."""
  index = np.asarray(index, np.int64)
  if isinstance(rows, Sliced):
    return take(rows.rows, permute(index + rows.start, size=len(rows.rows), key=(0,)))
  if isinstance(rows, range):
    return rows.start + index * rows.step
  return rows[index]


def in_test(group: str, *, share: float = TEST_SHARE) -> bool:
  """Returns whether a group of records belongs to test: the 64-bit BLAKE2b hash of its name is in the lowest share."""
  digest = hashlib.blake2b(group.encode("utf-8", "surrogateescape"), digest_size=8).digest()
  return int.from_bytes(digest, "big") < share * 2**64


def select(text: str, *, own: Mapping[str, Rows], size: int, group: Callable[[int], str]) -> Rows:
  """Returns the rows of the split that `text` names.

  Args:
    text: the split, in the grammar above.
    own: the source's own splits, name -> rows.
    size: the number of records in the source.
    group: row -> the name whose hash decides, for a source without its own test split.

  Raises:
    UserError: bad syntax, an unknown split, or bounds outside the split.
  """
  match = _GRAMMAR.fullmatch(text)
  if not match:
    raise UserError(
      f"data split: found {text!r}, expected NAME or NAME[from:to], such as train[:90%] or train[100:200]"
    )
  rows = named(match["name"], own=own, size=size, group=group)
  if match["start"] is None:
    return rows
  start = _bound(match["start"], default=0, length=len(rows), text=text)
  stop = _bound(match["stop"], default=len(rows), length=len(rows), text=text)
  if start >= stop:
    raise UserError(f"data split: {text!r} selects records {start} to {stop} of {len(rows)}, which is none")
  return Sliced(rows, start, stop)


def named(name: str, *, own: Mapping[str, Rows], size: int, group: Callable[[int], str]) -> Rows:
  """Returns the rows of a whole split: "all", one of the source's own, or "train" / "test" by hash."""
  if name == "all":
    return range(size)
  if name in ("train", "test") and len(own) < 2:
    return np.flatnonzero([in_test(group(row)) == (name == "test") for row in range(size)])
  if name in own:
    return own[name]
  validation = [other for other in VALIDATION if other in own]
  if name == "test" and validation:
    return own[validation[0]]
  raise UserError(
    f"data split: unknown split {nearest(name, {*own, 'all'} | ({'train', 'test'} if len(own) < 2 else set()))}"
  )


def _bound(bound: str, *, default: int, length: int, text: str) -> int:
  if not bound:
    return default
  match = _BOUND.fullmatch(bound)
  if not match:
    raise UserError(f"data split: found bound {bound!r} in {text!r}, expected a count or a share such as 90%")
  value = int(match["number"]) if match["number"] else math.floor(length * Fraction(match["percent"]) / 100)
  if value > length:
    raise UserError(f"data split: {text!r} asks for record {value}, but the split holds {length}")
  return value
