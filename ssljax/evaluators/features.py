"""Frozen features: what an encoder makes of a labelled split, as NumPy arrays on the host."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ssljax import distributed
from ssljax.errors import UserError, nearest

Encode = Callable[[Mapping[str, Any]], Mapping[str, Any]]
Labelled = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Features:
  """The features of a training and a test split: everything an evaluator sees.

  Attributes:
    train_x: f32[N,D].
    train_y: int32[N], classes 0..num_classes-1 (-1 where the source has no labels).
    test_x: f32[M,D].
    test_y: int32[M].
    num_classes: number of classes; 0 where the source has no labels.
  """

  train_x: np.ndarray
  train_y: np.ndarray
  test_x: np.ndarray
  test_y: np.ndarray
  num_classes: int

  def accuracy(self, predicted: np.ndarray) -> float:
    """Returns the share of test rows (0..1) whose class is `predicted` int32[M]."""
    return float(np.mean(np.asarray(predicted) == self.test_y))

  def labelled(self, evaluator: str) -> "Features":
    """Returns self.

    Raises:
      UserError: the source has no labels or one of the splits is empty, so `evaluator` cannot score.
    """
    if not len(self.train_y) or not len(self.test_y):
      raise UserError(f"evaluator {evaluator}: found {len(self.train_y)} training and {len(self.test_y)} test examples")
    if self.num_classes < 1 or min(self.train_y.min(), self.test_y.min()) < 0:
      raise UserError(f"evaluator {evaluator}: found no labels in the data source, expected a labelled source")
    return self


def extract(encode: Encode, batches: Iterable[Mapping[str, np.ndarray]], *, key: str = "embedding") -> Labelled:
  """Returns (features f32[N,D], labels int32[N]) of the valid rows of `batches`, in their order.

  The device works on one batch while the host reads the next: at most two batches of features are on the device.

  Args:
    encode: compiled function of a batch.
    batches: host batches of one shape, the last one padded: `valid` bool[B] is False on padding. Without
      `label` int32[B] the labels are -1.
    key: which output of `encode` to keep; f32[B,...] is flattened to [B,D].

  Raises:
    UserError: `encode` returns no `key`, or there is no batch.
  """
  rows = list(_one_behind(_encoded(encode, batches, key)))
  if not rows:
    raise UserError(f"features {key}: found no examples, expected at least one batch")
  x, y = zip(*rows, strict=True)
  return np.concatenate(x), np.concatenate(y)


def _encoded(encode: Encode, batches: Iterable[Mapping[str, np.ndarray]], key: str) -> Iterator[tuple]:
  for batch in batches:
    outputs = encode(batch)
    if key not in outputs:
      raise UserError(f"encode: unknown output {nearest(key, outputs)}")
    valid = batch["valid"]
    yield outputs[key], valid, batch.get("label", np.full(len(valid), -1))


def _one_behind(encoded: Iterable[tuple]) -> Iterator[Labelled]:
  """Yields host rows of the batch before the newest one, so that the newest is computed meanwhile."""
  waiting = None
  for item in encoded:
    if waiting is not None:
      yield _valid_rows(*waiting)
    waiting = item
  if waiting is not None:
    yield _valid_rows(*waiting)


def _valid_rows(x: Any, valid: np.ndarray, label: np.ndarray) -> Labelled:
  x = np.asarray(distributed.to_host(x), np.float32)
  valid = np.asarray(distributed.to_host(valid), bool)
  return x.reshape(len(x), -1)[valid], np.asarray(distributed.to_host(label), np.int32)[valid]
