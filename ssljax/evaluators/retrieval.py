"""Retrieval: which of the nearest are right, between images and texts and among texts."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np

from ssljax.errors import UserError
from ssljax.evaluators.pairs import PairFeatures

_PRODUCTS = 2**24  # held at once


def ranked(queries: np.ndarray, candidates: np.ndarray, *, k: int) -> np.ndarray:
  """Returns the k candidates f32[M,D] of largest dot product with each query f32[N,D], best first: int64[N,k].

  Equal products go to the lower index.
  """
  k, chunk = min(k, len(candidates)), max(_PRODUCTS // len(candidates), 1)
  rows = []
  for start in range(0, len(queries), chunk):
    products = queries[start : start + chunk].astype(np.float64) @ candidates.T.astype(np.float64)
    rows.append(np.argsort(-products, axis=1, kind="stable")[:, :k])
  return np.concatenate(rows)


def recall_at(found: np.ndarray, relevant: Sequence[set[int]], *, k: int) -> float:
  """Returns the share of queries of whose first k candidates found int[N,K] any is among `relevant`, N sets."""
  hits = [bool(relevant[i].intersection(row[:k].tolist())) for i, row in enumerate(found)]
  return float(np.mean(hits))


def chance_at(relevant: Sequence[set[int]], *, candidates: int, k: int) -> float:
  """Returns what `recall_at` would be on average for k candidates drawn at random, without replacement."""
  return float(np.mean([1.0 - _none(len(right), candidates, min(k, candidates)) for right in relevant]))


def chance_of(score: str) -> str:
  """Returns the name of the chance of one of `Retrieval`'s scores: "i2t_chance@5" of "i2t_r@5"."""
  return score.replace("_r@", "_chance@")


def _none(right: int, candidates: int, k: int) -> float:
  """Returns the probability that none of `right` candidates is among k drawn."""
  drawn = np.arange(k)
  return float(np.prod(np.clip(candidates - right - drawn, 0, None) / (candidates - drawn)))


def ndcg_at(found: np.ndarray, relevance: Sequence[Mapping[int, float]], *, k: int = 10) -> float:
  """Returns the mean over queries of DCG@k / ideal DCG@k, gains linear in the relevance, discounts 1 / log2(rank + 1).

  Args:
    found: int[N,K], candidates, best first.
    relevance: for each query candidate -> relevance; queries without any are left out of the mean.
    k: how many candidates count.

  Source: Thakur et al., BEIR: A Heterogeneous Benchmark for Zero-shot Evaluation of Information Retrieval Models,
    2021, arXiv 2104.08663; the gain is trec_eval's (the relevance itself, not 2^relevance - 1).
  """
  discounts = 1.0 / np.log2(np.arange(2, k + 2))
  scores = []
  for row, gains in zip(found, relevance, strict=True):
    ideal = np.sort([gain for gain in gains.values() if gain > 0])[::-1][:k]
    if len(ideal):
      gained = np.array([gains.get(int(candidate), 0.0) for candidate in row[:k]])
      scores.append(float(gained @ discounts[: len(gained)] / (ideal @ discounts[: len(ideal)])))
  return float(np.mean(scores)) if scores else 0.0


@dataclasses.dataclass(frozen=True)
class Retrieval:
  """R@k between images and texts, both ways, as `i2t_r@k` and `t2i_r@k`, with chance beside it.

  An image is found right if any of its texts is among the first k, a text if any of its images is. Images without
  texts ask for nothing, and are candidates all the same.

  Attributes:
    ks: the k's.
    captions: all captions of the images, or the first of each alone.

  Source: Karpathy, Fei-Fei, "Deep Visual-Semantic Alignments for Generating Image Descriptions", 2014, arXiv
    1412.2306 (the measure).
  """

  ks: tuple[int, ...] = (1, 5, 10)
  captions: Literal["all", "first"] = "all"
  reads: ClassVar[str] = "pairs"

  def __post_init__(self):
    if not self.ks or min(self.ks) < 1:
      raise UserError(f"retrieval.Retrieval: ks {list(self.ks)}, expected numbers from 1")

  def __call__(self, features: PairFeatures) -> dict[str, float]:
    """Returns the shares 0..1 and their chance, for each k."""
    features = features if self.captions == "all" else features.first()
    texts_of, images_of = features.relevant()
    asking = [image for image, texts in enumerate(texts_of) if texts]
    ways = {
      "i2t": (features.images[asking], features.texts, [texts_of[image] for image in asking]),
      "t2i": (features.texts, features.images, images_of),
    }
    scores = {}
    for way, (queries, candidates, relevant) in ways.items():
      found = ranked(queries, candidates, k=max(self.ks))
      for k in self.ks:
        scores[f"{way}_r@{k}"] = recall_at(found, relevant, k=k)
        scores[f"{way}_chance@{k}"] = chance_at(relevant, candidates=len(candidates), k=k)
    return scores
