"""Features of frozen encoders over labelled data, and what the configured evaluators say of them."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssljax import build, distributed, sharding, transforms
from ssljax.data.pipeline import epoch
from ssljax.data.source import Source, open_source
from ssljax.errors import UserError
from ssljax.evaluators.features import Features, extract
from ssljax.training.run import Run
from ssljax.types import Array, Batch, Params, TrainState

# Pixels a side of the raw baseline, by averaging. On the embedded photographs 32 score lower than 16.
_PIXELS = 16


def parameters(state: TrainState) -> Params:
  """Returns the parameters to evaluate: their moving average where the optimiser keeps one."""
  average = transforms.ema_params(state.opt_state)
  return state.params if average is None else average


class Measure:
  """Calls the evaluators of `config.evaluation` on features of a state, of raw pixels, or of any function.

  Raises:
    UserError: a source without labels, a batch the devices do not divide, an unknown evaluator.
  """

  def __init__(self, run: Run):
    section, data = run.job.evaluation, run.job.data
    assert section is not None
    self._section, self._mesh, self._augment = section, run.mesh, run.augment
    self.evaluators = {
      name: build.build(part, "evaluators", where=f"evaluation.evals.{name}") for name, part in section.evals.items()
    }
    self.train, self.test = (
      self._open(section.source or data.source, split, data.image_size) for split in (section.train, section.test)
    )
    devices = sharding.batch_devices(run.mesh)
    if section.batch_size % devices:
      raise UserError(f"evaluation.batch_size: found {section.batch_size}, expected a multiple of {devices} devices")
    self._encode = run.encode
    self._pixels = jax.jit(lambda batch: {section.feature: _flat_pixels(run.augment.evaluate(batch)["image"])})

  def __call__(self, state: TrainState) -> dict[str, float]:
    """Returns the evaluators' numbers for a state."""
    wanted = any(map(self._wanted, self.evaluators.values()))
    return (self.scores(self.features(state)) if wanted else {}) | self.more(state)

  def more(self, state: TrainState) -> dict[str, float]:
    """Returns the numbers that are not of features alone; here there are none."""
    del state
    return {}

  def raw(self) -> dict[str, float]:
    """Returns the same for the pixels themselves: the baseline every encoder has to beat."""
    return self.scores(self._extract(self._pixels))

  def features(self, state: TrainState) -> Features:
    """Returns the features of both splits under a state."""
    params = parameters(state)
    return self._extract(lambda batch: self._encode(params, state.objective_state, batch))

  def scores(self, features: Features) -> dict[str, float]:
    """Returns the evaluators' numbers for features."""
    wanted = [evaluator for evaluator in self.evaluators.values() if self._wanted(evaluator)]
    return {key: value for evaluator in wanted for key, value in evaluator(features).items()}

  def _wanted(self, evaluator: Any) -> bool:
    """Returns whether an evaluator reads features of labelled pictures."""
    return getattr(evaluator, "reads", "features") == "features"

  def _extract(self, encode: Callable[[Batch], dict[str, Array]]) -> Features:
    with jax.set_mesh(self._mesh):
      train_x, train_y = extract(encode, self._batches(self.train), key=self._section.feature)
      test_x, test_y = extract(encode, self._batches(self.test), key=self._section.feature)
    classes = self.train.num_classes or int(max(train_y.max(), test_y.max())) + 1
    return Features(train_x, train_y, test_x, test_y, classes)

  def _batches(self, source: Source) -> Iterator[dict[str, Any]]:
    place = sharding.batch_sharding(self._mesh)
    for batch in epoch(source, self._section.batch_size):
      yield {key: jax.device_put(value, place) for key, value in batch.arrays.items()}

  def _open(self, spec: str, split: str, image_size: int) -> Source:
    source = open_source(spec, split=split, image_size=image_size)
    if "label" not in source.keys and any(map(self._wanted, self.evaluators.values())):
      raise UserError(f"evaluation.source: {spec} has no labels, expected a source with labels or evaluation=None")
    return source


def encoded_rows(
  encode: Callable[[Array], Array], rows: np.ndarray, *, size: int, mesh: jax.sharding.Mesh
) -> np.ndarray:
  """Returns f32[T,D] of rows of ids int32[T,L], encoded in batches of `size`, the last one filled up with its first."""
  place, found = sharding.batch_sharding(mesh), []
  for start in range(0, len(rows), size):
    part = rows[start : start + size]
    full = np.concatenate([part, np.repeat(part[:1], size - len(part), axis=0)])
    found.append(distributed.to_host(encode(jax.device_put(full, place))))
  return np.concatenate(found)[: len(rows)]


def _flat_pixels(images: Array) -> Array:
  """Returns f32[B, s*s*C] of images [B,H,W,C], s at most `_PIXELS` by averaging blocks."""
  factor = max(images.shape[1] // _PIXELS, 1)
  side = images.shape[1] // factor * factor
  batch, channels = images.shape[0], images.shape[-1]
  blocks = images[:, :side, :side].reshape(batch, side // factor, factor, side // factor, factor, channels)
  return jnp.mean(blocks, axis=(2, 4)).reshape(batch, -1)
