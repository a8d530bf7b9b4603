"""What text evaluators are given: the run's model as functions of a batch, and the texts."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from ssljax.data.corpus import Corpus

Arrays = Mapping[str, np.ndarray]
When = Literal["always", "once", "asked"]
"""When an evaluator is called: at every evaluation, once at the end (it does not look at the model), on request."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextProbe:
  """A model and held-out text: everything a text evaluator sees.

  Attributes:
    train: the documents the model was trained on.
    test: held-out documents.
    batch_size: rows the functions take at once.
    score: rows -> (nats, bytes of text) predicted, both summed over the rows; padding rows are zero everywhere.
    write: (prompts int32[B,P], most tokens, temperature, seed) -> tokens int32[B,T] that the model writes.
    say: prints a line.
  """

  train: Corpus
  test: Corpus
  batch_size: int
  score: Callable[[Arrays], tuple[float, float]]
  write: Callable[[np.ndarray, int, float, int], np.ndarray]
  say: Callable[[str], None]
