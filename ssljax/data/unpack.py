"""Decompressing .gz and .zst into a file, never more than is believable."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ssljax.data.tokenizer import require
from ssljax.errors import UserError

SUFFIXES = (".gz", ".zst")
MAX_BYTES = 64 * 2**30
MAX_RATIO = 200  # text packs to a third or a tenth; a bomb to a thousandth
ALWAYS = 16 * 2**20  # bytes allowed at any ratio
_WINDOW = 128 * 2**20  # bytes of memory a .zst may ask for


def unpack(path: Path, out: Path) -> None:
  """Writes the decompressed content of a .gz or .zst file to `out`.

  Raises:
    UserError: a damaged or truncated file; content above 64 GB, or above 200 times the file (and 16 MB); for .zst a
      missing zstandard.
  """
  limit = min(MAX_BYTES, max(ALWAYS, MAX_RATIO * path.stat().st_size))
  stream, size = _zstd if path.suffix == ".zst" else _gzip, 0
  with open(path, "rb") as source, open(out, "wb") as target:
    for block in stream(source, str(path)):
      size += len(block)
      if size > limit:
        raise UserError(f"data source: {path}: found more than {limit:,} bytes inside, expected at most that")
      target.write(block)


def _gzip(source: BinaryIO, name: str) -> Iterator[bytes]:
  with gzip.GzipFile(fileobj=source) as file:
    while block := _read(file, name):
      yield block


def _read(file: gzip.GzipFile, name: str) -> bytes:
  try:
    return file.read(2**20)
  except (EOFError, gzip.BadGzipFile, zlib.error) as error:
    raise _damaged(name, error) from None


def _zstd(source: BinaryIO, name: str) -> Iterator[bytes]:
  require("zstandard", why=f"data source: {name}")
  import zstandard

  decompressor, frame = zstandard.ZstdDecompressor(max_window_size=_WINDOW), None
  while data := source.read(4096):  # little at once: 4 bytes can stand for 128 KiB
    while data:
      frame = frame or decompressor.decompressobj()
      try:
        yield frame.decompress(data)
      except zstandard.ZstdError as error:
        raise _damaged(name, error) from None
      data, frame = (frame.unused_data, None) if frame.eof else (b"", frame)
  if frame is not None:
    raise _damaged(name, "it ends early")


def _damaged(name: str, why: object) -> UserError:
  return UserError(f"data source: {name} cannot be decompressed ({str(why)[:120]}), expected a whole file")
