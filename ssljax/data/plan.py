"""The plan of an epoch: which piece of which document is corrupted how, and which row it lies in.

A pure function of (the documents' lengths, the mixture, seed, epoch). Every token of every document is in exactly one
example: documents are cut where a denoiser's text is full, and nowhere else. 25 bytes an example are held in memory.
"""

from typing import Literal, NamedTuple

import numpy as np

from ssljax.data import denoising
from ssljax.data.mixture import Mixture
from ssljax.data.packing import pack
from ssljax.data.permutation import mix, permute, words

Documents = Literal["shared", "disjoint"]


class Examples(NamedTuple):
  """Examples in the order of their rows; every field is [P].

  Attributes:
    begin: int64, the first token's place in the store.
    length: int32, tokens.
    denoiser: int8, its number in the mixture.
    visible: int32, tokens that are not hidden.
    spans: int32, sentinels on either side.
    key: uint64, what its corruption is drawn from.
  """

  begin: np.ndarray
  length: np.ndarray
  denoiser: np.ndarray
  visible: np.ndarray
  spans: np.ndarray
  key: np.ndarray

  def take(self, index: np.ndarray | slice) -> "Examples":
    """Returns the examples at `index`."""
    return Examples(*(field[index] for field in self))


class Plan(NamedTuple):
  """An epoch's rows.

  Attributes:
    examples: in the order of the rows.
    starts: int64[R+1], row r holds the examples starts[r] to starts[r+1].
  """

  examples: Examples
  starts: np.ndarray

  @property
  def rows(self) -> int:
    """Returns the number of rows."""
    return len(self.starts) - 1


def make(offsets: np.ndarray, mixture: Mixture, *, seed: int, epoch: int, documents: Documents) -> Plan:
  """Returns the plan of an epoch.

  Args:
    offsets: int64[D+1], document d is the store's tokens offsets[d] to offsets[d+1].
    mixture: denoisers, rates and lengths.
    seed, epoch: decide everything that is random.
    documents: "shared": a denoiser is drawn for each piece of a document, anew in each epoch; "disjoint": one for
      each document, for ever, so that denoisers see different documents.
  """
  examples = _corruption(_cut(offsets, mixture, seed, epoch, documents), mixture)
  examples = examples.take(np.argsort(examples.key, kind="stable"))  # neighbours in a window are strangers
  sizes = mixture.sizes(examples.length, examples.visible, examples.spans)
  side_by_side = [sizes.inputs + sizes.targets] if mixture.layout == "decoder_only" else list(sizes)
  rows = pack(np.stack(side_by_side, axis=1), capacity=mixture.capacity)
  count = int(rows.max()) + 1
  rows = permute(rows, size=count, key=(seed, epoch))
  order = np.argsort(rows, kind="stable")
  return Plan(examples.take(order), np.searchsorted(rows[order], np.arange(count + 1)))


def _cut(offsets: np.ndarray, mixture: Mixture, seed: int, epoch: int, documents: Documents) -> Examples:
  """Returns the pieces of all documents with their denoisers, in no useful order; not yet how much is visible."""
  longest, edges = np.array(mixture.lengths), np.cumsum(mixture.shares)
  keys = mix(words(seed, epoch, count=1) ^ np.arange(len(offsets) - 1, dtype=np.uint64))
  fixed = mix(words(seed, count=1) ^ np.arange(len(offsets) - 1, dtype=np.uint64))
  begin, end = offsets[:-1].copy(), offsets[1:]
  open_ = np.flatnonzero(begin < end)
  found = []
  while len(open_):
    keys[open_] = mix(keys[open_] + np.uint64(1))
    draw = mix((fixed if documents == "disjoint" else keys)[open_] ^ np.uint64(0xD1)) >> np.uint64(11)
    denoiser = np.minimum(np.searchsorted(edges, draw / 2.0**53, side="right"), len(edges) - 1)
    length = np.minimum(longest[denoiser], end[open_] - begin[open_])
    found.append((begin[open_].copy(), length, denoiser, keys[open_]))
    begin[open_] += length
    open_ = open_[begin[open_] < end[open_]]
  begin, length, denoiser, keys = (np.concatenate(parts) for parts in zip(*found, strict=True))
  zeros = np.zeros(len(begin), np.int32)
  return Examples(begin, length.astype(np.int32), denoiser.astype(np.int8), zeros, zeros, keys)


def _corruption(examples: Examples, mixture: Mixture) -> Examples:
  """Returns the examples with how much of each is visible and in how many spans."""
  visible, spans = np.zeros_like(examples.visible), np.zeros_like(examples.spans)
  for number, denoiser in enumerate(mixture.denoisers):
    mine = examples.denoiser == number
    lengths = examples.length[mine].astype(np.int64)
    hidden, spans[mine] = denoiser.counts(lengths)
    visible[mine] = lengths - hidden
    if denoiser.mean_span is None:
      visible[mine] = denoising.prefix_lengths(examples.key[mine], lengths, density=denoiser.density)
  return examples._replace(visible=visible, spans=spans)
