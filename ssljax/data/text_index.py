"""Where the documents of a text file lie: one pass over its bytes finds them, as int64[D,3]."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ssljax.data import html_text
from ssljax.data.documents import decode
from ssljax.errors import UserError

PIECE = 64 * 2**10  # bytes; longer plain text is cut
MAX_LINE = 64 * 2**20  # bytes of a line of .jsonl
MAX_PAGE = 64 * 2**20  # bytes of a page of .html
MAX_CORRUPT = 0.001  # share of the lines of a file
_HEAD = 8 * 2**10  # bytes in which a NUL shows a binary file
_BOM = b"\xef\xbb\xbf"


class Index(NamedTuple):
  """The documents of one file.

  Attributes:
    rows: int64[D,3]: the first byte, the byte after the last, the number of the line or piece, from 1.
    replaced: how many times bytes that are no UTF-8 are replaced by U+FFFD.
    empty: documents left out because they hold nothing but white space.
    corrupt: lines left out because they hold no text.
  """

  rows: np.ndarray
  replaced: int
  empty: int
  corrupt: int


def plain(file: BinaryIO) -> Index:
  """Returns the documents of plain text: the whole file, or pieces of at most 64 KiB that end with a line.

  Where 64 KiB hold no line break, the cut is between two characters.
  """
  rows, replaced, empty, start = [], 0, 0, _skip_bom(file)
  for number, piece in enumerate(_pieces(file), start=1):
    text, wrong = decode(piece)
    if text.strip():
      rows.append((start, start + len(piece), number))
      replaced += wrong
    else:
      empty += 1
    start += len(piece)
  return Index(np.array(rows, np.int64).reshape(-1, 3), replaced, empty, 0)


def jsonl(file: BinaryIO, *, name: str) -> Index:
  """Returns the documents of JSON lines, one a line, in the field "text".

  Raises:
    UserError: more than 0.1 % of the lines hold none.
  """
  rows, replaced, empty, wrong, first = [], 0, 0, 0, ""
  number, start = 0, _skip_bom(file)
  for number, (length, line) in enumerate(_lines(file), start=1):
    try:
      text, bad = parse(line)
      if text.strip():
        rows.append((start, start + length, number))
        replaced += bad
      else:
        empty += 1
    except ValueError as error:
      wrong, first = wrong + 1, first or f"line {number}: {error}"
    start += length
  if wrong > MAX_CORRUPT * number:
    raise UserError(f"data source: {name}: {wrong} of {number} lines hold no text, first {first}")
  return Index(np.array(rows, np.int64).reshape(-1, 3), replaced, empty, wrong)


def html(file: BinaryIO, out: Path, *, name: str) -> Index:
  """Returns the one document of an HTML page in UTF-8, whose text it writes to `out`, or none if it holds no text.

  Raises:
    UserError: a page above 64 MB.
  """
  _skip_bom(file)
  data = file.read(MAX_PAGE + 1)
  if len(data) > MAX_PAGE:
    raise UserError(f"data source: {name}: found more than {MAX_PAGE:,} bytes, expected a page of at most that")
  page, replaced = decode(data)
  text = html_text.extract(page.replace("\0", "\ufffd")).encode()
  out.write_bytes(text)
  if not text:
    return Index(np.zeros((0, 3), np.int64), 0, int(bool(data)), 0)
  return Index(np.array([(0, len(text), 1)], np.int64), replaced + page.count("\0"), 0, 0)


def parse(line: bytes | None) -> tuple[str, int]:
  """Returns (the field "text" of a line of JSON, how many times U+FFFD had to stand for what is no character).

  Raises:
    ValueError: no JSON, no string "text", or (None) a line above 64 MB.
  """
  if line is None:
    raise ValueError(f"longer than {MAX_LINE:,} bytes")
  decoded, replaced = decode(line)
  try:
    found: Any = json.loads(decoded)
  except (ValueError, RecursionError) as error:
    raise ValueError(f"no JSON ({str(error)[:100]})") from None
  text = found.get("text") if isinstance(found, dict) else None
  if not isinstance(text, str):
    raise ValueError('no string "text"')
  return _whole(text, replaced)


def check_text(file: BinaryIO, *, name: str) -> None:
  """Raises UserError when a file, open at its start, is binary: it has a NUL byte in its first 8 KiB."""
  if b"\0" in file.read(_HEAD):
    raise UserError(f"data source: {name}: found a NUL byte, a binary file, expected text in UTF-8")
  file.seek(0)


def _whole(text: str, replaced: int) -> tuple[str, int]:
  """JSON can spell halves of surrogate pairs, which no encoding can write."""
  try:
    text.encode("utf-8")
    return text, replaced
  except UnicodeEncodeError:
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return whole, replaced + whole.count("\ufffd") - text.count("\ufffd")


def _skip_bom(file: BinaryIO) -> int:
  start = len(_BOM) if file.read(len(_BOM)) == _BOM else 0
  file.seek(start)
  return start


def _pieces(file: BinaryIO) -> Iterator[bytes]:
  rest = b""
  while True:
    data = rest + file.read(PIECE + 1 - len(rest))
    if len(data) <= PIECE:
      if data:
        yield data
      return
    cut = _cut(data)
    yield data[:cut]
    rest = data[cut:]


def _cut(data: bytes) -> int:
  """Returns where to cut PIECE + 1 bytes: after the last line, or else before the last character that crosses."""
  if line := data.rfind(b"\n", 0, PIECE) + 1:
    return line
  continues = (cut for cut in range(PIECE, PIECE - 4, -1) if data[cut] & 0xC0 != 0x80)
  return next(continues, PIECE)


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
  """Yields (length, line) with the line break; None stands for a line that is too long to be held."""
  while line := file.readline(MAX_LINE + 1):
    length, held = len(line), line if len(line) <= MAX_LINE else None
    while held is None and not line.endswith(b"\n") and (line := file.readline(MAX_LINE)):
      length += len(line)
    yield length, held


def save(index: Index, folder: Path) -> None:
  """Writes index.npy and index.json."""
  np.save(folder / "index.npy", index.rows, allow_pickle=False)
  counts = {"replaced": index.replaced, "empty": index.empty, "corrupt": index.corrupt}
  (folder / "index.json").write_text(json.dumps(counts), encoding="utf-8")


def load(folder: Path) -> Index:
  """Returns the index that `save` wrote, its rows mapped from disk.

  Raises:
    UserError: it is damaged.
  """
  try:
    rows = np.load(folder / "index.npy", mmap_mode="r", allow_pickle=False)
    counts = json.loads((folder / "index.json").read_text("utf-8"))
    return Index(rows.reshape(-1, 3), *(int(counts[key]) for key in ("replaced", "empty", "corrupt")))
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(f"cache: {folder} is damaged ({str(error)[:120]}), expected an index; delete it") from None
