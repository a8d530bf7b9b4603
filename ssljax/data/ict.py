"""Queries and blocks for the inverse cloze task: what `config.data.ict` says, and the stream of pairs made of texts."""

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from ssljax.data.blocks import Blocks, cut, group
from ssljax.data.corpus import named_tokenizer
from ssljax.data.documents import open_documents
from ssljax.data.permutation import mix, shuffled, words
from ssljax.data.pipeline import HostBatch, check, host_positions, index_words, prefetched
from ssljax.data.sentences import open_sentences
from ssljax.data.tokenizer import Tokenizer
from ssljax.errors import UserError

_USE = 0x1C7  # of the seed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cloze:
  """How texts become pairs of a query and the block it comes from.

  Attributes:
    tokenizer: as in `corpus.Text`.
    query_length, block_length: tokens of a row, with those that the tokenizer wants around a text.
    keep: probability that the query also stays in its block, so that exact words help now and then.
    vocabulary: written by the program: what the run was started with. Another one is refused.

  Raises:
    UserError: lengths that leave no room, a `keep` that is no probability.
  """

  tokenizer: str
  query_length: int = 64
  block_length: int = 256
  keep: float = 0.1
  vocabulary: str | None = None

  def __post_init__(self):
    if self.query_length < 8:
      raise UserError(f"data.ict.query_length: found {self.query_length}, expected at least 8")
    if self.block_length < 2 * self.query_length:
      least = f"at least 2 query_length = {2 * self.query_length}: two sentences"
      raise UserError(f"data.ict.block_length: found {self.block_length}, expected {least}")
    if not 0 <= self.keep <= 1:
      raise UserError(f"data.ict.keep: found {self.keep}, expected a probability")


@dataclasses.dataclass(frozen=True)
class Passages:
  """One split of a source as blocks of sentences.

  Attributes:
    cloze: the section.
    blocks: sentences and blocks.
    tokenizer: makes the ids.
    licence: of the texts.
    trained_on: source and split its tokenizer is learnt from, where it is learnt.
    section: the key of `data` it is made by.
  """

  section: ClassVar[str] = "ict"
  cloze: Cloze
  blocks: Blocks
  tokenizer: Tokenizer
  licence: str
  trained_on: tuple[str, str]

  def __len__(self) -> int:
    return len(self.blocks.bounds)

  @property
  def identity(self) -> str:
    """Returns the vocabulary in words: its size, and the tokenizer's fingerprint."""
    return f"{self.tokenizer.size} ids, tokenizer {self.tokenizer.fingerprint[:16]}"

  def queries(self, sentences: np.ndarray) -> np.ndarray:
    """Returns sentences int64[n] as rows int32[n,query_length]: bos if there is one, the text, eos, padding 0."""
    nothing = (sentences, sentences)
    return self._layout(sentences, sentences + 1, hidden=nothing, width=self.cloze.query_length)

  def rows(self, blocks: np.ndarray, *, hidden: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Returns blocks int64[n] without their sentences `hidden`, from and to, as rows int32[n,block_length] alike."""
    first, last = self.blocks.bounds[blocks].T
    return self._layout(first, last, hidden=hidden, width=self.cloze.block_length)

  def _layout(self, *bounds: np.ndarray, **where: Any) -> np.ndarray:
    return self.blocks.layout(*bounds, **where, first=self.tokenizer.bos, eos=self.tokenizer.eos)

  def stream(self, *, seed: int, batch_size: int, **hosts: int) -> "ClozeStream":
    """Returns the stream of batches."""
    return ClozeStream(passages=self, seed=seed, batch_size=batch_size, **hosts)


def open_passages(
  spec: str, cloze: Cloze, *, split: str, trained_on: tuple[str, str], key: str = "data.source"
) -> Passages:
  """Returns the passages of a split; arguments are those of `corpus.open_corpus`, and the key that errors name.

  Sentences longer than a query are cut into equal parts; a block is as many sentences of one document, one after the
  other, as fit. What is left alone at the end of a document is no block.

  Raises:
    UserError: what the source or the tokenizer cannot be; no document of two sentences; another vocabulary.
  """
  documents = open_documents(spec, split=split)
  tokenizer = named_tokenizer(cloze.tokenizer, *trained_on)
  sentences = open_sentences(documents, tokenizer)
  around = 1 + (tokenizer.bos is not None)
  offsets, owners = cut(
    np.asarray(sentences.offsets), np.asarray(sentences.documents), most=cloze.query_length - around
  )
  bounds = group(offsets, owners, most=cloze.block_length - around)
  if not len(bounds):
    raise UserError(f"{key}: {spec} ({split}) has no document of two sentences, expected some, or data.text")
  passages = Passages(cloze, Blocks(sentences, offsets, bounds, owners), tokenizer, documents.licence, trained_on)
  if cloze.vocabulary not in (None, passages.identity):
    raise UserError(
      f"data.ict.tokenizer: found {passages.identity}, expected {cloze.vocabulary}, as the run was started"
    )
  return passages


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClozeStream:
  """An endless stream of batches of queries and blocks, a pure function of (seed, step).

  Row i of step s is position s * batch_size + i of the blocks, shuffled anew each epoch. The position alone decides
  which of its sentences is the query and whether the block keeps it.

  Attributes:
    passages: the texts.
    seed: decides order, queries and what is kept.
    batch_size: the GLOBAL batch, in pairs; a multiple of `num_hosts`.
    host: which of the hosts this is, from 0.
    num_hosts: how many hosts read.
  """

  passages: Passages
  seed: int
  batch_size: int
  host: int = 0
  num_hosts: int = 1

  def __post_init__(self):
    check(self.batch_size, self.host, self.num_hosts)

  @property
  def epoch_size(self) -> int:
    """Returns the positions of an epoch: the blocks."""
    return len(self.passages)

  def batch(self, step: int) -> HostBatch:
    """Returns this host's part of the batch of `step`: `query`, `block` and `index` uint32[b,2]; see `read`."""
    positions = host_positions(step, self.batch_size, self.host, self.num_hosts)
    return HostBatch(self.read(positions).arrays | {"index": index_words(positions)}, ())

  def read(self, positions: np.ndarray) -> HostBatch:
    """Returns `query` int32[n,Lq] and `block` int32[n,Lb] at positions int64[n] of the stream, padding 0.

    A row is the tokenizer's first id if it has one, the text, and its end of text.
    """
    chosen, kept = self.draw(positions)
    rows = shuffled(positions, size=len(self.passages), seed=self.seed)
    first, last = self.passages.blocks.bounds[rows].T
    query = first + (chosen * (last - first)).astype(np.int64)
    nothing = np.where(kept, query, query + 1)  # a query that is kept hides no sentence
    queries, blocks = self.passages.queries(query), self.passages.rows(rows, hidden=(query, nothing))
    return HostBatch({"query": queries, "block": blocks}, ())

  def draw(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (which part of its block the query is from, f64[n] in [0, 1); whether the block keeps it, bool[n])."""
    first = mix(words(self.seed, _USE, count=1) ^ positions.astype(np.uint64))
    uniform = lambda word: (word >> np.uint64(11)) * 2.0**-53
    return uniform(first), uniform(mix(first + np.uint64(1))) < self.passages.cloze.keep

  def iterate(self, start: int = 0, *, workers: int = 0, threads: int = 2, prefetch: int = 4) -> Iterator[HostBatch]:
    """Yields the batches of steps `start`, `start` + 1, ... without end; see `pipeline.Stream.iterate`."""
    return prefetched(self.batch, start, 2**62, workers=workers, threads=threads, prefetch=prefetch)
