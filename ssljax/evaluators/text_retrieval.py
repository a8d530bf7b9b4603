"""Retrieval among texts: how high the right passages stand in a ranking, whoever made it."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from ssljax.data.search import Search
from ssljax.errors import UserError
from ssljax.evaluators.retrieval import chance_at, ndcg_at, recall_at

NDCG = 10  # BEIR's
FUSED = 100  # passages of each ranking that are put together
_SMOOTH = 60  # of reciprocal rank fusion


@dataclasses.dataclass(frozen=True)
class TextRetrieval:
  """R@k and nDCG@10 of each task, as `TASK_r@k` and `TASK_ndcg@10`.

  A query is found right if any of its passages is among the first k.

  Attributes:
    ks: the k's.

  Source: Thakur et al., BEIR, 2021, arXiv 2104.08663 (nDCG@10, linear gain); Karpukhin et al., "Dense Passage Retrieval
    for Open-Domain Question Answering", 2020, arXiv 2004.04906 (the share of queries with a right one among k).
  """

  ks: tuple[int, ...] = (1, 5, 10)

  def __post_init__(self):
    if not self.ks or min(self.ks) < 1:
      raise UserError(f"text_retrieval.TextRetrieval: ks {list(self.ks)}, expected numbers from 1")

  def check(self, search: Search) -> None:
    """Raises UserError where a task has fewer passages than are looked at, so that everything is found."""
    if len(search.passages) <= max(self.ks):
      raise UserError(
        f"evaluation.test: found {len(search.passages)} passages ({search.name}), expected more than {max(self.ks)}, "
        f"the largest of ks, else every ranking is right"
      )

  def __call__(self, search: Search, found: np.ndarray) -> dict[str, float]:
    """Returns the numbers of a ranking int[Q,K] of passages, best first."""
    right = [set(relevance) for relevance in search.relevance]
    scores = {f"{search.name}_r@{k}": recall_at(found, right, k=k) for k in self.ks}
    return scores | {f"{search.name}_ndcg@{NDCG}": ndcg_at(found, search.relevance, k=NDCG)}

  def chance(self, search: Search) -> dict[str, float]:
    """Returns what random rankings have on average."""
    right, count = [set(relevance) for relevance in search.relevance], len(search.passages)
    scores = {f"{search.name}_r@{k}": chance_at(right, candidates=count, k=k) for k in self.ks}
    return scores | {f"{search.name}_ndcg@{NDCG}": _chance_ndcg(search, count)}


def without(found: np.ndarray, same: np.ndarray | None, *, k: int) -> np.ndarray:
  """Returns the first k of each ranking int[Q,k+1] after the passage `same` int[Q] was taken out, -1 for none."""
  if same is None:
    return found[:, :k]
  kept = np.argsort(found == same[:, None], axis=1, kind="stable")[:, :k]
  return np.take_along_axis(found, kept, axis=1)


def fused(rankings: Sequence[np.ndarray]) -> np.ndarray:
  """Returns one ranking int[Q,K] of several int[Q,K]: by the sum of 1 / (60 + rank), of equals the first one's first.

  Source: Cormack, Clarke, Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning
    Methods", 2009.
  """
  return np.array([_fused(rows) for rows in zip(*rankings, strict=True)])


def _fused(rows: Sequence[np.ndarray]) -> list[int]:
  """Returns the fused ranking of one query, as long as those it is made of."""
  scores: dict[int, float] = {}
  for row in rows:
    for rank, passage in enumerate(row.tolist(), start=1):
      scores[passage] = scores.get(passage, 0.0) + 1.0 / (_SMOOTH + rank)
  return sorted(scores, key=lambda passage: -scores[passage])[: len(rows[0])]


def _chance_ndcg(search: Search, count: int) -> float:
  """Returns the mean nDCG of random rankings: every rank has the mean relevance."""
  discounts = 1.0 / np.log2(np.arange(2, NDCG + 2))
  shares = []
  for relevance in search.relevance:
    ideal = np.sort(list(relevance.values()))[::-1][:NDCG]
    gained = sum(relevance.values()) / count * discounts[: min(NDCG, count)].sum()
    shares.append(gained / (ideal @ discounts[: len(ideal)]))
  return float(np.mean(shares))
