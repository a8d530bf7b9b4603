"""Documents as one flat array of token ids on disk, tokenised once."""

import functools
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ssljax.data import cache as caches
from ssljax.data.documents import Documents
from ssljax.data.tokenizer import Tokenizer
from ssljax.errors import UserError

_BATCH = 4 * 2**20  # characters tokenised at once
_EVERY = 5.0  # seconds between two lines of progress


class Tokens:
  """The token ids of D documents, without eos, one after the other; pickling keeps the path alone.

  Attributes:
    folder: where they lie.
    tokens: uint16[T] or uint32[T], mapped from disk: the documents end to end.
    offsets: int64[D+1], mapped from disk: document d is tokens[offsets[d]:offsets[d+1]], never empty.
    num_bytes: the UTF-8 bytes of the D texts; num_bytes / T is the bytes a token.
    dropped: the documents left out because they became no token.
  """

  lazy = ("tokens", "offsets")

  def __init__(self, folder: Path):
    self.folder = folder
    try:
      meta = json.loads((folder / "meta.json").read_text("utf-8"))
      self.num_bytes, self.dropped = int(meta["num_bytes"]), int(meta["dropped"])
      self._dtype = {"uint16": np.uint16, "uint32": np.uint32}[meta["dtype"]]
      whole = self.tokens.shape == (self.offsets[-1],)
    except (OSError, ValueError, KeyError) as error:
      raise _broken(folder, error) from None
    if not whole:
      raise _broken(folder, f"{len(self.tokens)} tokens, not {self.offsets[-1]}")

  @functools.cached_property
  def tokens(self) -> np.ndarray:
    """Returns the ids [T], mapped from disk."""
    return np.memmap(self.folder / "tokens.bin", self._dtype, "r")

  @functools.cached_property
  def offsets(self) -> np.ndarray:
    """Returns int64[D+1], mapped from disk."""
    return np.load(self.folder / "offsets.npy", mmap_mode="r", allow_pickle=False)

  def __len__(self) -> int:
    return len(self.offsets) - 1

  def document(self, row: int) -> np.ndarray:
    """Returns the ids int32[n] of one document."""
    return self.tokens[self.offsets[row] : self.offsets[row + 1]].astype(np.int32)

  def __getstate__(self) -> dict[str, Any]:
    return {key: value for key, value in self.__dict__.items() if key not in self.lazy}


def progress(text: str) -> None:
  """Prints a line of progress to stderr."""
  print(text, file=sys.stderr, flush=True)


def open_tokens(
  documents: Documents, tokenizer: Tokenizer, *, cache: Path | None = None, say: Callable[[str], None] = progress
) -> Tokens:
  """Returns the tokens of all documents, from the cache where they have been made before.

  Args:
    documents: the texts; their fingerprint covers the split.
    tokenizer: makes the ids; uint16 when it has at most 65,536.
    cache: the folder that holds one folder per pair of fingerprints; default: tokens/ in the cache of `ssljax`.
    say: called with a line of progress every 5 seconds.

  Raises:
    UserError: no document gives a token; the cache is damaged or cannot be written.
  """
  folder = cache if cache is not None else caches.root() / "tokens"
  key = caches.key("tokens-1", documents.fingerprint, tokenizer.fingerprint)
  return Tokens(caches.cached(folder / key, lambda aside: write(documents, tokenizer, aside, say)))


def write(
  documents: Documents,
  tokenizer: Tokenizer,
  folder: Path,
  say: Callable[[str], None],
  split: Callable[[str], list[str]] | None = None,
) -> None:
  """Writes what `Tokens` reads; with `split`, of the pieces of each document, and documents.npy int64[D+1].

  Document d then has the pieces documents[d] to documents[d+1], those without tokens left out.
  """
  dtype = np.uint16 if tokenizer.size <= 2**16 else np.uint32
  lengths, num_bytes, dropped, due = [np.zeros(1, np.int64)], 0, 0, time.monotonic() + _EVERY
  counts = [np.zeros(1, np.int64)]
  with open(folder / "tokens.bin", "wb") as file:
    for done, texts in _batches(documents):
      parts = [split(text) if split else [text] for text in texts]
      owner = np.repeat(np.arange(len(texts)), [len(part) for part in parts])
      texts = [piece for part in parts for piece in part]
      rows = tokenizer.encode(texts)
      file.write(np.concatenate(rows).astype(dtype).tobytes())
      length = np.array([len(row) for row in rows], np.int64)
      lengths.append(length[length > 0])
      counts.append(np.bincount(owner[length > 0], minlength=len(parts)))
      dropped += int((length == 0).sum())
      num_bytes += sum(len(text.encode("utf-8")) for text, row in zip(texts, rows, strict=True) if len(row))
      if time.monotonic() > due:
        say(f"tokens: {done:,} of {len(documents):,} documents, {num_bytes / 1e6:,.0f} MB of text")
        due = time.monotonic() + _EVERY
  offsets = np.cumsum(np.concatenate(lengths))
  if not offsets[-1]:
    raise UserError(f"data source: {documents.name(0)} and the other {len(documents) - 1} documents give no token")
  np.save(folder / "offsets.npy", offsets, allow_pickle=False)
  if split:
    np.save(folder / "documents.npy", np.cumsum(np.concatenate(counts)), allow_pickle=False)
  meta = {"dtype": np.dtype(dtype).name, "num_bytes": num_bytes, "dropped": dropped}
  (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def _batches(documents: Documents) -> Iterator[tuple[int, list[str]]]:
  """Yields (documents read so far, texts) with about 4 million characters each."""
  texts: list[str] = []
  size = 0
  for row in range(len(documents)):
    texts.append(documents.read(row))
    size += len(texts[-1])
    if size >= _BATCH or row == len(documents) - 1:
      yield row + 1, texts
      texts, size = [], 0


def _broken(folder: Path, why: object) -> UserError:
  return UserError(f"cache: {folder} is damaged ({str(why)[:120]}), expected what was written; delete it")
