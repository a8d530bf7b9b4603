"""Real inputs for the gate: the first examples of a run's own data, as its networks see them."""

from typing import Any

import jax
import numpy as np

from ssljax import distributed
from ssljax.objectives.ul2 import shift_right


def real(run: Any, count: int) -> dict[str, np.ndarray]:
  """Returns `image` f32[N,H,W,C], normalised, with `text` int32[N,L] where the run reads captions, or the leaves of
  `count` rows of text, one example a row.

  Of queries and blocks (`data.ict`) it is both.

  Args:
    run: a `training.run.Run`.
    count: N.
  """
  if run.job.data.ict is not None:
    return {key: run.stream.batch(run.job.data.begin).arrays[key][:count] for key in ("query", "block")}
  if run.job.data.text is not None:
    return _text(run.stream.batch(run.job.data.begin).arrays, count)
  if run.captioner is not None:
    host = {key: value[:count] for key, value in run.stream.batch(run.job.data.begin).arrays.items()}
    made = run.augment.evaluate({key: jax.numpy.asarray(value) for key, value in host.items()})
    text = made["text"] if "text" in made else made["texts"][:, 0]
    return {"image": distributed.to_host(made["image"]), "text": distributed.to_host(text)}
  host = run.source.read(np.arange(min(count, len(run.source)))).arrays
  made = run.augment.evaluate({key: jax.numpy.asarray(value) for key, value in host.items()})
  return {"image": distributed.to_host(made["image"])}


def _text(arrays: dict[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
  """Returns the first example of each row, all else of it padding; the other library packs nothing."""
  rows = {key: np.asarray(value)[:count] for key, value in arrays.items()}
  first = rows["target_segments"] == 1
  made = {"target_segments": first.astype(np.int32), "target_positions": np.where(first, rows["target_positions"], 0)}
  targets = np.where(first, rows["targets"], 0)
  made["targets_in"] = np.asarray(shift_right(targets, made["target_positions"], start=0)) * first
  if "inputs" in rows:
    mine = rows["input_segments"] == 1
    return made | {"inputs": np.where(mine, rows["inputs"], 0), "input_segments": mine.astype(np.int32)}
  prefix = np.asarray(shift_right(np.where(first, rows["prefix"], 0), made["target_positions"], start=1))
  return made | {"prefix_in": prefix * first}
