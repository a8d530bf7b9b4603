"""What a retriever is measured on: queries, passages, and which of them are right."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from ssljax.data.ict import Passages
from ssljax.data.permutation import mix, words
from ssljax.data.tokenizer import Tokenizer
from ssljax.errors import UserError

_USE = 0x5EA  # of the random words, which no seed of a run enters: all runs are asked the same


@dataclasses.dataclass(frozen=True, eq=False)
class Search:
  """Queries that ask for passages.

  Attributes:
    name: what tables call it.
    queries: int32[Q,Lq], rows as the encoder reads them.
    passages: int32[N,Lb].
    relevance: of each query passage -> relevance, above 0 for at least one.
    query_texts, passage_texts: the same in words, for what counts words.
    cut: how many queries and how many passages were longer than their rows.
    same: int64[Q], the passage that is the query itself and no answer to it, -1 for none; None: no query has one.
  """

  name: str
  queries: np.ndarray
  passages: np.ndarray
  relevance: Sequence[Mapping[int, float]]
  query_texts: Sequence[str]
  passage_texts: Sequence[str]
  cut: tuple[int, int] = (0, 0)
  same: np.ndarray | None = None

  @property
  def about(self) -> str:
    """Returns its size in words, and what was cut."""
    text = f"{self.name}: {len(self.queries):,} queries for {len(self.passages):,} passages"
    if not any(self.cut):
      return text
    return f"{text}; {self.cut[0]:,} queries and {self.cut[1]:,} passages are longer than their rows and are cut"


def cloze(passages: Passages) -> Search:
  """Returns the task that is trained: one sentence of every block, chosen once for ever, asks for its block without it.

  Raises:
    UserError: fewer than two blocks.
  """
  count = len(passages)
  if count < 2:
    raise UserError(f"evaluation.test: found {count} block of sentences, expected at least 2")
  rows = np.arange(count)
  first, last = passages.blocks.bounds.T
  uniform = (mix(words(_USE, count=1) ^ rows.astype(np.uint64)) >> np.uint64(11)) * 2.0**-53
  query = first + (uniform * (last - first)).astype(np.int64)
  relevance = [{row: 1.0} for row in range(count)]
  return _search("cloze", passages, query, passages.rows(rows, hidden=(query, query + 1)), relevance)


def lead(passages: Passages) -> Search | None:
  """Returns the task in which the first sentence of a document asks for its blocks but the first; None without any.

  The passages are the blocks of all documents but the first of each, so no query stood beside its answer: its words
  are not carried on there, as they are in `cloze`.
  """
  blocks, owners = passages.blocks, passages.blocks.owners()
  rows = np.flatnonzero(np.append(False, owners[1:] == owners[:-1]))  # there is one before it
  if not len(rows):
    return None
  asking, numbers = np.unique(owners[rows], return_inverse=True)
  relevance: list[dict[int, float]] = [{} for _ in asking]
  for passage, query in enumerate(numbers.tolist()):
    relevance[query][passage] = 1.0
  nothing = (blocks.bounds[rows, 0],) * 2
  return _search("lead", passages, blocks.documents[asking], passages.rows(rows, hidden=nothing), relevance)


def _search(name: str, passages: Passages, query: np.ndarray, rows: np.ndarray, relevance: list) -> Search:
  queries, tokenizer = passages.queries(query), passages.tokenizer
  return Search(name, queries, rows, relevance, _texts(tokenizer, queries), _texts(tokenizer, rows))


def _texts(tokenizer: Tokenizer, rows: np.ndarray) -> list[str]:
  return [tokenizer.decode(row) for row in rows]
