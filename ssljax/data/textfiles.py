"""Text files: plain text, JSON lines and HTML, each also .gz and .zst, read by byte offsets from an index made once."""

import functools
import glob
import os
import re
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from ssljax.data import cache, html_text, text_index, unpack
from ssljax.data.documents import Documents, decode
from ssljax.errors import UserError

GROUP_BY_FILE = 20  # files from which on whole files go to train or test
_FORMS = {".jsonl": "jsonl", ".html": "html", ".htm": "html", ".HTML": "html", ".HTM": "html"}
_WILD = re.compile(r"[*?\[]")


class _File(NamedTuple):
  path: Path
  below: str  # the path below the fixed part of its glob, so that a moved folder splits alike
  size: int  # bytes
  mtime_ns: int

  @property
  def form(self) -> str:
    """Returns "jsonl", "html" or "plain"."""
    inner = self.path.with_suffix("") if self.packed else self.path
    return _FORMS.get(inner.suffix, "plain")

  @property
  def packed(self) -> bool:
    return self.path.suffix in unpack.SUFFIXES

  @property
  def derived(self) -> bool:
    """Returns whether the cache holds the text, not the file: it was decompressed or taken out of a page."""
    return self.packed or self.form == "html"

  @property
  def identity(self) -> tuple:
    """Returns what its documents depend on."""
    return (str(self.path), self.size, self.mtime_ns, *([html_text.VERSION] if self.form == "html" else []))


def open_all(where: str) -> "TextFiles":
  """Returns the documents in the files that one of several globs, separated by commas, matches, sorted by path.

  A .jsonl file holds one document a line, in its field "text"; a .html or .htm file is one document, its text as
  `html_text.extract` finds it; any other is plain text, cut above 64 KiB. Names ending in .gz or .zst are decompressed
  into the cache. "**" matches folders of any depth.

  Raises:
    UserError: a glob that matches no file; a binary, damaged or unreadable file; a page above 64 MB; no file with text;
      more than 0.1 % of the lines of a .jsonl without text; a missing package.
  """
  found = {file.path: file for pattern in where.split(",") if pattern for file in _matches(pattern)}
  if not found:
    raise UserError(f"data source: text:{where} names no file, expected text:GLOB")
  return TextFiles([found[path] for path in sorted(found)])


class TextFiles(Documents):
  """The documents of text files, file after file.

  From 20 files on, train and test are made of whole files, below of single lines or pieces.
  """

  lazy = ("_rows",)

  def __init__(self, files: list[_File]):
    self.files = files
    self.folders = [_prepare(file) for file in files]
    counts = []
    for folder in self.folders:
      index = text_index.load(folder)
      counts.append(len(index.rows))
      self.replaced += index.replaced
      self.empty += index.empty
      self.corrupt += index.corrupt
    self.starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    if not len(self):
      raise UserError(f"data source: {files[0].path} holds no text, nor do the other {len(files) - 1} files")
    self.empty += sum(file.size == 0 for file in files)
    self.fingerprint = cache.key("text-1", *(file.identity for file in files))

  @functools.cached_property
  def _rows(self) -> np.ndarray:
    return np.concatenate([text_index.load(folder).rows for folder in self.folders])

  def __len__(self) -> int:
    return int(self.starts[-1])

  def _place(self, row: int) -> tuple[int, int]:
    """Returns (which file, the number of the line or piece)."""
    return int(np.searchsorted(self.starts, row, side="right")) - 1, int(self._rows[row, 2])

  def read(self, row: int) -> str:
    """Returns the text of a line or piece.

    Raises:
      UserError: the file is another one than when it was opened.
    """
    which, _ = self._place(row)
    file, (start, stop, _) = self.files[which], self._rows[row].tolist()
    if file.derived:
      data = _bytes(self.folders[which] / "text", start, stop, expected=None)
    else:
      data = _bytes(file.path, start, stop, expected=file)
    return (text_index.parse(data) if file.form == "jsonl" else decode(data))[0]

  def name(self, row: int) -> str:
    """Returns PATH:NUMBER, the number that of the line or piece from 1."""
    which, number = self._place(row)
    return f"{self.files[which].path}:{number}"

  def group(self, row: int) -> str:
    """Returns the file from 20 files on, below that file:number."""
    which, number = self._place(row)
    below = self.files[which].below
    return below if len(self.files) >= GROUP_BY_FILE else f"{below}:{number}"


def _matches(pattern: str) -> list[_File]:
  pattern = os.path.expanduser(pattern.strip())
  wild = _WILD.search(pattern)
  root = os.path.dirname(pattern[: wild.start()] if wild else pattern)
  names = [pattern] if os.path.isfile(pattern) else glob.glob(pattern, recursive=True)
  files = [name for name in names if os.path.isfile(name)]
  if not files:
    found = f"a folder, expected files: {pattern.rstrip('/')}/*.txt" if names else "nothing, expected a file or a glob"
    raise UserError(f"data source: text:{pattern}: found {found}")
  return [_stat(name, root) for name in files]


def _stat(name: str, root: str) -> _File:
  found = os.stat(name)
  return _File(Path(os.path.abspath(name)), os.path.relpath(name, root or "."), found.st_size, found.st_mtime_ns)


def _prepare(file: _File) -> Path:
  """Returns the folder in the cache that holds the index of a file and, if it is compressed or HTML, its text."""
  key = cache.key("text-1", *file.identity)
  return cache.cached(cache.root() / "text" / key, functools.partial(_build, file))


def _build(file: _File, folder: Path) -> None:
  try:
    open(file.path, "rb").close()
  except OSError as error:
    raise UserError(f"data source: {file.path}: {error.strerror}, expected a readable file") from None
  if file.packed:
    unpack.unpack(file.path, folder / "text")
  with open(folder / "text" if file.packed else file.path, "rb") as text:
    text_index.check_text(text, name=str(file.path))
    index = _index(file, text, folder)
  text_index.save(index, folder)


def _index(file: _File, text: BinaryIO, folder: Path) -> text_index.Index:
  if file.form == "html":
    return text_index.html(text, folder / "text", name=str(file.path))
  return text_index.jsonl(text, name=str(file.path)) if file.form == "jsonl" else text_index.plain(text)


def _bytes(path: Path, start: int, stop: int, *, expected: _File | None) -> bytes:
  try:
    with open(path, "rb", buffering=0) as file:
      found = os.fstat(file.fileno())
      if expected and (found.st_size, found.st_mtime_ns) != (expected.size, expected.mtime_ns):
        raise UserError(f"data source: {path} has changed since it was opened, expected it to stay; start again")
      return os.pread(file.fileno(), stop - start, start)
  except OSError as error:
    raise UserError(f"data source: {path}: {error.strerror}, expected a readable file") from None
