"""Blocks of sentences: sentences cut to a length, grouped by document, and laid out as rows of token ids."""

import dataclasses
import itertools

import numpy as np

from ssljax.data.tokens import Tokens


def cut(offsets: np.ndarray, documents: np.ndarray, *, most: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns offsets and documents of the same tokens in sentences of at most `most` tokens.

  A sentence that is longer becomes as few parts as do, of lengths that differ by one at most.

  Args:
    offsets: int64[S+1], where sentences begin in the tokens.
    documents: int64[D+1], where documents begin in the sentences.
    most: tokens.
  """
  lengths = np.diff(offsets)
  counts = -(-lengths // most)
  before = np.cumsum(counts) - counts
  part = np.arange(counts.sum()) - np.repeat(before, counts)
  begins = np.repeat(offsets[:-1], counts) + np.repeat(lengths, counts) * part // np.repeat(counts, counts)
  return np.append(begins, offsets[-1]), np.append(before, counts.sum())[documents]


def group(offsets: np.ndarray, documents: np.ndarray, *, most: int) -> np.ndarray:
  """Returns the blocks int64[N,2]: the first sentence of each and the one behind its last.

  A block is as many sentences of a document, one after the other, as have at most `most` tokens together. One of a
  single sentence is left out: without its query it would be empty.
  """
  blocks = []
  for first, behind in itertools.pairwise(documents.tolist()):
    while first < behind:
      fit = int(np.searchsorted(offsets, offsets[first] + most, side="right")) - 1
      last = min(max(fit, first + 1), behind)
      blocks.append((first, last))
      first = last
  found = np.array(blocks, np.int64).reshape(-1, 2)
  return found[np.diff(found)[:, 0] > 1]


@dataclasses.dataclass(frozen=True)
class Blocks:
  """Blocks of sentences over a store of tokens.

  Attributes:
    store: the tokens; its own offsets are not read.
    offsets: int64[S+1], where sentences begin.
    bounds: int64[N,2], of each block the first sentence and the one behind its last.
    documents: int64[D+1], where documents begin in the sentences.
  """

  store: Tokens
  offsets: np.ndarray
  bounds: np.ndarray
  documents: np.ndarray

  @property
  def left_out(self) -> int:
    """Returns the number of sentences that are in no block."""
    return len(self.offsets) - 1 - int(np.diff(self.bounds).sum())

  def owners(self) -> np.ndarray:
    """Returns the document int64[N] that each block is of."""
    return np.searchsorted(self.documents, self.bounds[:, 0], side="right") - 1

  def layout(
    self,
    begin: np.ndarray,
    end: np.ndarray,
    *,
    hidden: tuple[np.ndarray, np.ndarray],
    width: int,
    first: int | None,
    eos: int,
  ) -> np.ndarray:
    """Returns rows int32[B,width] of sentences begin to end without those of `hidden`, padded with 0.

    Args:
      begin, end: int64[B], a row's first sentence and the one behind its last.
      hidden: int64[B] twice, the same of what is left out; equal for nothing.
      width: tokens of a row; those of the sentences must fit between `first` and `eos`.
      first: id before the text, None for none.
      eos: id behind it.
    """
    start, stop = self.offsets[hidden[0]], self.offsets[hidden[1]]
    length = self.offsets[end] - self.offsets[begin]
    row = np.repeat(np.arange(len(begin)), length)
    source = self.offsets[begin][row] + _number(length)
    shown = (source < start[row]) | (source >= stop[row])
    row, source = row[shown], source[shown]
    count = np.bincount(row, minlength=len(begin))
    shift = int(first is not None)
    ids = np.zeros((len(begin), width), np.int32)
    ids[row, _number(count) + shift] = self.store.tokens[source]
    ids[np.arange(len(begin)), count + shift] = eos
    if first is not None:
      ids[:, 0] = first
    return ids


def _number(lengths: np.ndarray) -> np.ndarray:
  """Returns 0, 1, ... length - 1 for each of the lengths, one after the other."""
  return np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
