"""Classes that arrive a few at a time, over frozen features: classifiers in closed form, nothing to forget.

The classes come in sessions; after each one the test rows of all classes seen so far are classified among these.
"""

import abc
import dataclasses
from typing import ClassVar, NamedTuple

import numpy as np

from ssljax.errors import UserError
from ssljax.evaluators.features import Features

_CHUNK = 1024  # test rows scored at once: scores are f64[_CHUNK, C]


class _Classifier(NamedTuple):
  """score[m, c] = <x_m / |x_m|, kernel_c> + bias_c; the bias of a class without training rows is -inf."""

  kernel: np.ndarray
  bias: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class _ClassIncremental(abc.ABC):
  """The protocol; a subclass says what the classifier is.

  Attributes:
    sessions: how often new classes come; as many as there are classes at most.
    base_classes: classes of the first session; the others share the rest. None: all are near-equal, the first ones
      larger by one where it does not divide.
    order_seed: classes come shuffled; 1993 is the field's order. None: in ascending order.
  """

  metric: ClassVar[str]
  sessions: int = 10
  base_classes: int | None = None
  order_seed: int | None = None

  def __post_init__(self):
    if self.sessions < 1:
      raise UserError(f"{self.metric}: sessions {self.sessions}, expected at least 1")
    if self.base_classes is not None and self.base_classes < 1:
      raise UserError(f"{self.metric}: base_classes {self.base_classes}, expected at least 1")
    if self.order_seed is not None and not 0 <= self.order_seed < 2**32:
      raise UserError(f"{self.metric}: order_seed {self.order_seed}, expected 0 to 2^32 - 1")

  def __call__(self, features: Features) -> dict[str, float]:
    """Returns the accuracy after the last session, and its mean over the sessions as "..._average"."""
    f = features.labelled(self.metric)
    sessions = self.groups(f.num_classes)
    accuracy = _accuracies(self._classifier(f, base=sessions[0]), f, sessions)
    return {self.metric: float(accuracy[-1]), f"{self.metric}_average": float(np.nanmean(accuracy))}

  def groups(self, num_classes: int) -> list[np.ndarray]:
    """Returns the classes int[...] of each session.

    Raises:
      UserError: more base classes than classes, or no session for the classes after the base.
    """
    order = np.arange(num_classes)
    if self.order_seed is not None:
      # The generator of the published class orders; NumPy keeps its numbers for good.
      order = np.random.RandomState(self.order_seed).permutation(num_classes)
    if self.base_classes is None:
      return np.array_split(order, min(self.sessions, num_classes))
    rest = num_classes - self.base_classes
    if rest < 0 or (rest and self.sessions == 1):
      found = f"base_classes {self.base_classes} in {self.sessions} sessions"
      raise UserError(f"{self.metric}: {found}, expected at most the {num_classes} classes, and a session for the rest")
    later = np.array_split(order[self.base_classes :], min(self.sessions - 1, rest)) if rest else []
    return [order[: self.base_classes], *later]

  @abc.abstractmethod
  def _classifier(self, features: Features, *, base: np.ndarray) -> _Classifier:
    """Returns the classifier of all classes; `base` are the classes of the first session."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NearestMean(_ClassIncremental):
  """Accuracy of the nearest class mean (NMC), as `nearest_mean` and `nearest_mean_average`, shares 0..1.

  class = argmin_c || x / |x| - mu_c ||,  mu_c the mean of the training rows x / |x| of class c, not normalised again

  The mean over sessions is the field's average incremental accuracy. A class without training rows is never
  predicted. The last accuracy does not depend on the sessions.

  Source: Janson et al., "A Simple Baseline that Questions the Use of Pretrained-Models in Continual Learning", 2022,
    arXiv:2210.04428; Rebuffi et al., "iCaRL: Incremental Classifier and Representation Learning", 2017,
    arXiv:1611.07725.
  Differs from the reference: iCaRL's means are of a few exemplars and normalised again; these are of all rows.
  """

  metric: ClassVar[str] = "nearest_mean"

  def _classifier(self, features: Features, *, base: np.ndarray) -> _Classifier:
    mean, seen = _class_means(_unit(features.train_x), features)
    # |x - mu|^2 = 1 - 2 (<x, mu> - |mu|^2 / 2)
    return _Classifier(mean, np.where(seen, -0.5 * np.sum(mean**2, axis=1), -np.inf))


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimpleCIL(_ClassIncremental):
  """Accuracy of the cosine to the class mean, as `simple_cil` and `simple_cil_average`, shares 0..1.

  class = argmax_c cos(x, mu_c),  mu_c the mean of the training rows of class c, as they are

  The mean over sessions is the field's average incremental accuracy. A class without training rows is never
  predicted. The last accuracy does not depend on the sessions. Of features from `merge` it is the paper's ADAM.

  Source: Zhou et al., "Revisiting Class-Incremental Learning with Pre-Trained Models: Generalizability and Adaptivity
    are All You Need", 2023, arXiv:2303.07338.
  Differs from the reference: sessions are near-equal; the code gives what does not divide to a smaller last one.
  """

  metric: ClassVar[str] = "simple_cil"

  def _classifier(self, features: Features, *, base: np.ndarray) -> _Classifier:
    mean, seen = _class_means(features.train_x, features)
    return _Classifier(_unit(mean), np.where(seen, 0.0, -np.inf))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TEEN(_ClassIncremental):
  """Accuracy of SimpleCIL with calibrated later classes, as `teen` and `teen_average`, shares 0..1.

  class = argmax_c cos(x, p_c);  p_b = mu_b / |mu_b| for the classes b of the first session, and for later ones

      p_c = (1 - alpha) m + alpha d / |d|,  d = sum_b w_b p_b,  w = softmax_b(scale <m, p_b>),  m = mu_c / |mu_c|

  with mu the class means as they are. A class without training rows is never predicted and calibrates nothing.

  Attributes:
    sessions: see SimpleCIL; the paper has a large first session (60 of 100 classes, then 8 of 5): `base_classes`.
    alpha: how far later prototypes move towards the base, 0 (SimpleCIL) to 1; the code has 0.5 for CUB-200 and 0.1
      for CIFAR-100.
    scale: multiplies the cosines in the softmax: the paper's temperature.

  Raises:
    UserError: alpha outside 0 to 1.

  Source: Wang et al., "Few-Shot Class-Incremental Learning via Training-Free Prototype Calibration", 2023,
    arXiv:2312.05229.
  Differs from the reference: later classes have all their training rows, not five, and the encoder is frozen from the
    start. The formula, with d at length 1, is the released code's.
  """

  metric: ClassVar[str] = "teen"
  alpha: float = 0.5
  scale: float = 16.0

  def __post_init__(self):
    super().__post_init__()
    if not 0 <= self.alpha <= 1:
      raise UserError(f"{self.metric}: alpha {self.alpha}, expected 0 to 1")

  def _classifier(self, features: Features, *, base: np.ndarray) -> _Classifier:
    mean, seen = _class_means(features.train_x, features)
    prototype = _unit(mean)
    later = np.setdiff1d(np.arange(len(mean)), base)
    moved = calibrate(prototype[later], prototype[base[seen[base]]], alpha=self.alpha, scale=self.scale)
    prototype[later] = _unit(moved)
    return _Classifier(prototype, np.where(seen, 0.0, -np.inf))


def calibrate(later: np.ndarray, base: np.ndarray, *, alpha: float, scale: float) -> np.ndarray:
  """Returns the prototypes `later` moved towards those of `base` they resemble; see `TEEN`.

  Args:
    later: f64[L,D], rows of length 1.
    base: f64[B,D], rows of length 1; with none nothing moves.
    alpha: how far, 0 to 1.
    scale: multiplies the cosines in the softmax.
  """
  if not len(base):
    return later
  cosine = scale * later @ base.T
  weight = np.exp(cosine - cosine.max(axis=1, keepdims=True))
  return (1 - alpha) * later + alpha * _unit(weight @ base)  # a softmax's sum cancels in the length


def merge(first: Features, second: Features) -> Features:
  """Returns the features of two encoders side by side: f32[N, D1 + D2], neither normalised.

  Of a pretrained and an adapted encoder, under `SimpleCIL`, it is ADAM.

  Args:
    first: of the pretrained encoder.
    second: of the adapted one, of the same examples in the same order.

  Raises:
    UserError: the labels differ.

  Source: Zhou et al., "Revisiting Class-Incremental Learning with Pre-Trained Models: Generalizability and Adaptivity
    are All You Need", 2023, arXiv:2303.07338.
  """
  for split in ("train_y", "test_y", "num_classes"):
    if not np.array_equal(getattr(first, split), getattr(second, split)):
      raise UserError(f"merge: {split} differs between the two, expected features of the same examples in one order")
  return dataclasses.replace(
    first,
    train_x=np.concatenate([first.train_x, second.train_x], axis=1),
    test_x=np.concatenate([first.test_x, second.test_x], axis=1),
  )


def _unit(x: np.ndarray) -> np.ndarray:
  """Returns the rows of x[N,D] at Euclidean length 1 in float64; a zero row stays zero."""
  x = np.asarray(x, np.float64)
  return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def _class_means(x: np.ndarray, features: Features) -> tuple[np.ndarray, np.ndarray]:
  """Returns the mean f64[C,D] of the rows of each class, zero where it has none, and bool[C]: it has some."""
  order = np.argsort(features.train_y, kind="stable")
  count = np.bincount(features.train_y, minlength=features.num_classes)
  total = np.zeros((features.num_classes, x.shape[1]))
  for c, rows in enumerate(np.split(order, np.cumsum(count)[:-1])):
    total[c] = x[rows].sum(axis=0, dtype=np.float64)
  return total / np.maximum(count, 1)[:, None], count > 0


def _accuracies(classifier: _Classifier, features: Features, sessions: list[np.ndarray]) -> np.ndarray:
  """Returns the accuracy f64[S] on the classes seen so far after each session; NaN where they have no test rows."""
  order, ends = np.concatenate(sessions), np.cumsum([len(s) for s in sessions])
  rank = np.argsort(order)[features.test_y]
  correct = np.zeros(len(sessions))
  for start in range(0, len(rank), _CHUNK):
    rows = slice(start, start + _CHUNK)
    scores = (_unit(features.test_x[rows]) @ classifier.kernel.T + classifier.bias)[:, order]
    correct += _correct(scores, rank[rows], ends)
  tested = np.array([np.sum(rank < end) for end in ends])
  return np.where(tested > 0, correct / np.maximum(tested, 1), np.nan)


def _correct(scores: np.ndarray, rank: np.ndarray, ends: np.ndarray) -> np.ndarray:
  """Returns how many rows are right in each session, among the first `ends[s]` classes of scores[M,C].

  The best class so far is kept from session to session: every score is looked at once. Ties go to the earlier class.
  """
  best, predicted = np.full(len(scores), -np.inf), np.full(len(scores), -1)
  correct = []
  for first, end in zip([0, *ends[:-1]], ends, strict=True):
    new = scores[:, first:end].argmax(axis=1)
    value = np.take_along_axis(scores[:, first:end], new[:, None], axis=1)[:, 0]
    better = value > best
    best, predicted = np.where(better, value, best), np.where(better, first + new, predicted)
    correct.append(np.sum(predicted == rank))
  return np.array(correct)
