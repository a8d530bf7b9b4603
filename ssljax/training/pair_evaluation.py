"""What the configured evaluators say of images with texts."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ssljax.data.source import Source
from ssljax.errors import UserError
from ssljax.evaluators.features import extract
from ssljax.evaluators.pairs import PairFeatures
from ssljax.training.evaluation import Measure, encoded_rows, parameters
from ssljax.training.run import Run
from ssljax.types import TrainState


class PairMeasure(Measure):
  """Evaluators of pairs on the held-out pictures with all their captions; those of features as `Measure` calls them.

  Raises:
    UserError: a source without captions, or without labels where an evaluator of features wants some.
  """

  def __init__(self, run: Run):
    super().__init__(run)
    assert run.captioner is not None
    self._captioner, self._objective = run.captioner, run.objective
    if not self.test.has_captions:
      raise UserError("evaluation.source: found no captions, expected pictures that have some (as data.source)")
    self._encode_text = jax.jit(lambda params, state, ids: self._objective.encode(params, state, {"text": ids}))

  def more(self, state: TrainState) -> dict[str, float]:
    """Returns the numbers of the evaluators of pairs."""
    evaluators = [found for found in self.evaluators.values() if getattr(found, "reads", "features") == "pairs"]
    features = self.pairs(state) if evaluators else None
    return {key: value for evaluator in evaluators for key, value in evaluator(features).items()}

  def pairs(self, state: TrainState) -> PairFeatures:
    """Returns the features of the held-out pictures and of their captions, each caption once."""
    params, inner = parameters(state), state.objective_state
    encode = lambda batch: self._encode(params, inner, batch)
    with jax.set_mesh(self._mesh):
      images, labels = extract(encode, self._batches(self.test), key="image_features")
      texts, pairs = captions_of(self.test)
      found = self._texts(params, inner, texts)
    return PairFeatures(
      images=images,
      texts=found,
      pairs=pairs,
      labels=None if self.test.num_classes is None else labels,
      class_names=self.test.class_names,
      captions=tuple(texts),
      encode=lambda texts: self._encoded(params, inner, texts),
    )

  def _encoded(self, params: Any, inner: Any, texts: Sequence[str]) -> np.ndarray:
    with jax.set_mesh(self._mesh):
      return self._texts(params, inner, texts)

  def _texts(self, params: Any, inner: Any, texts: Sequence[str]) -> np.ndarray:
    """Returns the features f32[T,D] of texts, computed in batches of one shape."""
    encode = lambda ids: self._encode_text(params, inner, ids)["text_features"]
    return encoded_rows(encode, self._captioner.encode(texts).ids, size=self._section.batch_size, mesh=self._mesh)


def captions_of(source: Source, *, read: int = 256) -> tuple[list[str], np.ndarray]:
  """Returns (the captions of a source, each once, and pairs int64[P,2] of picture and caption)."""
  numbers: dict[str, int] = {}
  pairs = []
  for start in range(0, len(source), read):
    rows = np.arange(start, min(start + read, len(source)))
    for row, texts in zip(rows, source.captions(rows), strict=True):
      pairs += [(int(row), numbers.setdefault(text, len(numbers))) for text in dict.fromkeys(texts)]
  return list(numbers), np.array(pairs, np.int64).reshape(-1, 2)
