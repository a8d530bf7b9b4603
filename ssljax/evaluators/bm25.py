"""BM25: passages by the words they share with a query, which no encoder is worth its steps without beating."""

import importlib.util
import logging
import re
from collections.abc import Iterator, Sequence

import numpy as np

K1, B = 0.9, 0.4  # how soon a word's repeats stop counting, and how much a passage's length does: BEIR's
_WORD = re.compile(r"\w+")


def installed() -> bool:
  """Returns whether bm25s is there, which counts the words."""
  return importlib.util.find_spec("bm25s") is not None


def words(text: str) -> list[str]:
  """Returns the words of a text in lower case: runs of letters, digits and _."""
  return _WORD.findall(text.lower())


def bm25_scores(queries: Sequence[str], passages: Sequence[str]) -> Iterator[np.ndarray]:
  """Yields for each query the scores f32[N] of the N passages.

      score = sum_w idf(w) tf(w) / (tf(w) + K1 (1 - B + B length / mean length))
      idf(w) = log(1 + (N - n(w) + 1/2) / (n(w) + 1/2))

  over the words of the query, w being tf(w) times in the passage and in n(w) passages; a word twice in the query counts
  twice.

  Source: Robertson, Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009, in Lucene's form
    (Kamphuis et al., "Which BM25 Do You Mean?", 2020); K1 and B of Thakur et al., BEIR, 2021, arXiv 2104.08663.
  Differs from the reference: no stemming and no stop words.
  """
  import bm25s

  logging.getLogger("bm25s").setLevel(logging.WARNING)  # it would say at DEBUG that it builds an index
  split, index = [words(text) for text in passages], bm25s.BM25(method="lucene", k1=K1, b=B)
  known = {word for passage in split for word in passage}
  if known:
    index.index(split, show_progress=False)
  for text in queries:
    asked = [word for word in words(text) if word in known]
    yield index.get_scores(asked) if asked else np.zeros(len(passages), np.float32)


def bm25_ranked(queries: Sequence[str], passages: Sequence[str], *, k: int) -> np.ndarray:
  """Returns the k passages of the highest score for each query, best first: int64[Q,k]; of equals the lower index."""
  k = min(k, len(passages))
  return np.stack([np.argsort(-scores, kind="stable")[:k] for scores in bm25_scores(queries, passages)])
