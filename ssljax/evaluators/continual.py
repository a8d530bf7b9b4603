"""The field's measures of learning tasks one after the other, from the matrix of all scores.

`scores[i, j]` f64[T,T] is the score on task j after training on task i; rows and columns are in training order.
"""

import re
from typing import Literal

import numpy as np

from ssljax.errors import UserError

Better = Literal["higher", "lower"]
"""Whether a higher score is better (accuracy) or a lower one (bits per byte)."""

_BETTER: tuple[tuple[str, Better], ...] = (
  (r"/bits_per_byte$", "lower"),
  (r"^(i2t|t2i)_r@[0-9]+$", "higher"),
  (r"^(knn|linear_probe|sgd_probe|nearest_mean|simple_cil|teen)$", "higher"),
  (r"^(cloze|lead|queries)_(r@1|ndcg@10)$", "higher"),
)


def better_of(score: str) -> Better | None:
  """Returns which values of an evaluator's score are better; None for a diagnostic such as RankMe."""
  return next((better for pattern, better in _BETTER if re.search(pattern, score)), None)


def average(scores: np.ndarray) -> float:
  """Returns the mean score over all tasks after the last one, in the score's own unit.

  ACC = 1/T sum_j R[T,j]   (equation 2)

  Args:
    scores: f64[T,T].

  Raises:
    UserError: see `summary`.

  Source: Lopez-Paz and Ranzato, "Gradient Episodic Memory for Continual Learning", 2017, arXiv:1706.08840.
  """
  return float(_checked(scores)[-1].mean())


def average_seen(scores: np.ndarray) -> float:
  """Returns the mean over i of the mean score on the tasks 0..i after task i, in the score's own unit.

  Args:
    scores: f64[T,T]; only the diagonal and what is below it counts.

  Raises:
    UserError: see `summary`.

  Source: Rebuffi et al., "iCaRL: Incremental Classifier and Representation Learning", 2017, arXiv:1611.07725
    (average incremental accuracy).
  Differs from the reference: tasks weigh the same whatever their size.
  """
  return float(np.mean([row[: i + 1].mean() for i, row in enumerate(_checked(scores))]))


def backward_transfer(scores: np.ndarray, *, better: Better) -> float:
  """Returns what later tasks did to earlier ones: positive where they helped; NaN for one task.

  BWT = 1/(T-1) sum_{j<T} R[T,j] - R[j,j]   (equation 3), the sign turned where lower is better

  Args:
    scores: f64[T,T].
    better: which scores are better.

  Raises:
    UserError: see `summary`.

  Source: Lopez-Paz and Ranzato, "Gradient Episodic Memory for Continual Learning", 2017, arXiv:1706.08840.
  Differs from the reference: the paper's mean over T - 1 tasks; its code divides by T.
  """
  r = _higher_is_better(_checked(scores), better)
  return _mean(r[-1, :-1] - np.diag(r)[:-1])


def forward_transfer(scores: np.ndarray, untrained: np.ndarray, *, better: Better) -> float:
  """Returns what earlier tasks did to later ones before these were learned: positive where they helped.

  FWT = 1/(T-1) sum_{j>1} R[j-1,j] - b[j]   (equation 4), the sign turned where lower is better

  NaN for one task, and where one of these scores was not measured.

  Args:
    scores: f64[T,T]; scores[j-1, j] may be NaN: not measured.
    untrained: f64[T], the paper's b: the score on each task before any training; may be NaN.
    better: which scores are better.

  Raises:
    UserError: see `summary`.

  Source: Lopez-Paz and Ranzato, "Gradient Episodic Memory for Continual Learning", 2017, arXiv:1706.08840.
  Differs from the reference: the paper's mean over T - 1 tasks; its code divides by T.
  """
  r, b = _checked(scores), np.asarray(untrained, np.float64)
  if b.shape != r.shape[:1]:
    raise UserError(f"untrained: found shape {b.shape}, expected {r.shape[:1]}, one score for each task")
  if np.isinf(b).any():
    raise UserError("untrained: found an infinite score, expected finite numbers, NaN where not measured")
  return _mean(np.diag(_higher_is_better(r, better), 1) - _higher_is_better(b, better)[1:])


def forgetting(scores: np.ndarray, *, better: Better) -> float:
  """Returns how far the tasks fell from their best score: positive is worse; NaN for one task.

  F = 1/(T-1) sum_{j<T} f_j,  f_j = max_{l in 1..T-1} a[l,j] - a[T,j], the sign turned where lower is better

  As the paper defines it, l runs over every row but the last, also those before task j was learned: what other tasks
  taught about j counts as known. Rows that were not measured (NaN) are passed over. f_j may be negative.

  Args:
    scores: f64[T,T]; NaN above the diagonal: not measured.
    better: which scores are better.

  Raises:
    UserError: see `summary`.

  Source: Chaudhry et al., "Riemannian Walk for Incremental Learning: Understanding Forgetting and Intransigence",
    2018, arXiv:1801.10112, section 3.
  """
  a = _higher_is_better(_checked(scores), better)
  earlier = np.where(np.isnan(a), -np.inf, a)[:-1, :-1]
  return _mean(earlier.max(axis=0, initial=-np.inf) - a[-1, :-1])


def summary(scores: np.ndarray, untrained: np.ndarray, *, better: Better) -> dict[str, float]:
  """Returns average, average_seen, backward_transfer, forward_transfer and forgetting by name.

  What is not defined is left out: all but the averages for one task, forward_transfer where a score it needs was not
  measured. For two tasks forgetting is minus backward_transfer.

  Args:
    scores: f64[T,T], scores[i, j] on task j after training on task i.
    untrained: f64[T], scores before any training.
    better: which scores are better.

  Raises:
    UserError: `scores` is not square or empty, `untrained` has another length, a score is infinite, or one on or
      below the diagonal is NaN.
  """
  measures = {
    "average": average(scores),
    "average_seen": average_seen(scores),
    "backward_transfer": backward_transfer(scores, better=better),
    "forward_transfer": forward_transfer(scores, untrained, better=better),
    "forgetting": forgetting(scores, better=better),
  }
  return {name: value for name, value in measures.items() if not np.isnan(value)}


def _checked(scores: np.ndarray) -> np.ndarray:
  r = np.asarray(scores, np.float64)
  if r.ndim != 2 or r.shape[0] != r.shape[1] or not r.size:
    raise UserError(f"scores: found shape {r.shape}, expected a square matrix of at least one task")
  wrong = np.argwhere(np.isinf(r) | np.tril(np.isnan(r)))
  if len(wrong):
    i, j = wrong[0]
    raise UserError(f"scores: found {r[i, j]} on task {j} after task {i}, expected a finite number")
  return r


def _higher_is_better(values: np.ndarray, better: Better) -> np.ndarray:
  return values if better == "higher" else -values


def _mean(values: np.ndarray) -> float:
  return float(values.mean()) if values.size else float("nan")
