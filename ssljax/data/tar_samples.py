"""Which samples lie where in a .tar shard: read off its headers, which come from outside and may be hostile."""

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ssljax.data.decode import SUFFIXES
from ssljax.errors import UserError

TEXTS = ("txt", "json", "cls")
_MAX_HEADER = 2**20  # bytes; a long name or an extended header that claims more is hostile


class Member(NamedTuple):
  """Where a member's content lies in its shard, in bytes."""

  start: int
  size: int


class Sample(NamedTuple):
  """Members of one shard with the same key, one after the other.

  Attributes:
    key: their name up to the first dot; of damage "byte N".
    members: "image", "txt", "json", "cls" -> place; the first of each counts.
    damage: what is wrong where the shard cannot be read on from here; else empty.
  """

  key: str
  members: dict[str, Member]
  damage: str = ""


def samples(shard: Path) -> Iterator[Sample]:
  """Yields the samples of a shard and, where it is damaged, lastly one that says so.

  What is no regular file (links, devices, folders) and members of other kinds are passed over.

  Raises:
    UserError: it cannot be read, or is no uncompressed .tar.
  """
  key, members = "", {}
  for name, member in _members(shard):
    stem, kind = _kind(name)
    if members and (isinstance(member, str) or (kind and stem != key)):
      yield Sample(key, members)
      members = {}
    if isinstance(member, str):
      yield Sample(name, {}, member)
    elif kind:
      key = stem
      members.setdefault(kind, member)
  if members:
    yield Sample(key, members)


def _kind(name: str) -> tuple[str, str | None]:
  """Returns (key, what it is) of a member, None for what is no part of a sample."""
  folder, slash, file = name.rpartition("/")
  stem, _, ending = file.partition(".")
  ending = ending.lower().rpartition(".")[2]
  kind = "image" if f".{ending}" in SUFFIXES else ending if ending in TEXTS else None
  return folder + slash + stem, kind if stem else None


def _members(shard: Path) -> Iterator[tuple[str, Member | str]]:
  """Yields (name, place) of each regular file; where a header is damaged, lastly ("byte N", what is wrong)."""
  try:
    with open(shard, "rb") as file, tarfile.open(fileobj=_Headers(file), mode="r:", encoding="utf-8") as tar:
      try:
        while (found := tar.next()) is not None:
          tar.members = []  # it keeps all it has seen
          if found.isreg() and not found.issparse():
            yield found.name, Member(found.offset_data, found.size)
        wrong = "damaged" if _stands(file, tar.offset) else ""  # a header that is none ends it without a word
      except (tarfile.TarError, ValueError, OverflowError) as error:
        wrong = f"damaged ({error})"
      if wrong:
        yield f"byte {tar.offset}", f"{wrong}, what follows is lost"
  except tarfile.TarError as error:
    raise UserError(f"data source: {shard}: no .tar ({error}), expected one that is not compressed") from None
  except OSError as error:
    raise UserError(f"data source: {shard}: {error.strerror or error}, expected a readable .tar") from None


class _Headers:
  """A file of which `tarfile` reads headers: no read is large, whatever a header claims."""

  def __init__(self, file: BinaryIO):
    self.tell, self.seek, self._file = file.tell, file.seek, file

  def read(self, size: int) -> bytes:
    """Returns the next `size` bytes."""
    if not 0 <= size <= _MAX_HEADER:
      raise tarfile.ReadError(f"a header of {size:,} bytes")
    return self._file.read(size)


def _stands(file: BinaryIO, offset: int) -> bool:
  """Returns whether something stands where an archive should end: with a block of zeros, or with the file."""
  file.seek(offset, os.SEEK_SET)
  return any(file.read(tarfile.BLOCKSIZE))
