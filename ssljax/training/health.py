"""Health while a run goes on: a held-out slice of pictures, measured without labels, and the alarm of collapse."""

import collections
import pathlib
from collections.abc import Iterator, Mapping

import jax
import numpy as np

from ssljax import distributed, rng, sharding
from ssljax.data.pipeline import index_words
from ssljax.data.source import open_source
from ssljax.errors import UserError
from ssljax.evaluators.collapse import ON, History, watched
from ssljax.evaluators.health import measures
from ssljax.training.progress import ProgressLine
from ssljax.training.run import Run
from ssljax.types import Batch, TrainState
from ssljax.writer import FILE, Silence, Writer, read_metrics


class Slice:
  """Measures two augmented views of some pictures that are not trained on; see `config.Health`.

  Raises:
    UserError: a run without pictures, a source or split that is not there.
  """

  def __init__(self, run: Run):
    section, job = run.job.health, run.job
    assert section is not None
    if not job.data.pictures:
      raise UserError("health: found a section, expected none for text")
    self._run, self.section = run, section
    held = job.evaluation and job.evaluation.source
    split = section.split or (job.evaluation.test if job.evaluation else "test")
    source = open_source(section.source or held or job.data.source, split=split, image_size=job.data.image_size)
    rows = np.linspace(0, len(source) - 1, min(section.examples, len(source))).round().astype(np.int64)
    arrays, errors = source.read(rows)
    good = np.setdiff1d(np.arange(len(rows)), list(errors))
    if len(good) < 2:
      raise UserError(f"health.examples: found {len(good)} pictures that can be read, expected at least 2")
    self._arrays = {key: arrays[key][good] for key in ("image", "aspect")} | {"index": index_words(good)}

  def __call__(self, state: TrainState) -> dict[str, float]:
    """Returns the measures of a state; it depends on nothing else."""
    found = {name: measures(views[:, 0], views[:, 1]) for name, views in self._encode(state).items()}
    return {f"{name}_{key}": float(value) for name, one in found.items() for key, value in one.items()}

  def _encode(self, state: TrainState) -> dict[str, np.ndarray]:
    """Returns {name: f32[N,2,D]}, of the views of each picture."""
    key = rng.use_key(state.rng, rng.HEALTH)
    rows = collections.defaultdict(list)
    for valid, batch in self._batches():
      encoded = self._run.encode_views(state.params, state.objective_state, key, batch)
      for name, views in encoded.items():
        rows[name].append(distributed.to_host(views)[:valid])
    return {name: np.concatenate(parts) for name, parts in rows.items()}

  def _batches(self) -> Iterator[tuple[int, Batch]]:
    """Yields (rows that count, batch) of one shape, no larger than what is trained on; the last one is padded."""
    job, place = self._run.job, sharding.batch_sharding(self._run.mesh)
    devices, count = sharding.batch_devices(self._run.mesh), len(self._arrays["index"])
    size = min(job.data.batch_size // job.accumulate, -(-count // devices) * devices)
    for start in range(0, count, size):
      rows = np.minimum(np.arange(start, start + size), count - 1)
      yield min(size, count - start), {k: jax.device_put(v[rows], place) for k, v in self._arrays.items()}


def slice_of(run: Run) -> Slice | None:
  """Returns what is measured of a run; None where its config has no section `health`."""
  return Slice(run) if run.job.health else None


class Watch:
  """Measures at some steps, writes what it finds, and says when the run collapses.

  What it says depends on the run's own records alone: a run that is resumed says the same.

  Args:
    held: what is measured.
    workdir: where the run's metrics lie; the writer has dropped those of steps that are to be taken again.
    writer: gets the measures as "health/NAME", and "health/collapse", 1 while the alarm is on.
    progress: shows them.
  """

  def __init__(self, held: Slice, workdir: pathlib.Path, writer: Writer | Silence, progress: ProgressLine):
    self._held, self._writer, self._progress = held, writer, progress
    self._alarm = held.section.alarm
    self._history = History(self._alarm) if self._alarm else None
    self._known = 0
    for row in _records(workdir) if distributed.is_main() else ():
      self._add(int(row["step"]), row)

  def begin(self, step: int, state: TrainState) -> bool:
    """Measures what a run begins with, which later measures are compared to; returns whether it is to stop."""
    if not distributed.agreed(self._known > 0):
      self._measure(step, state)
    return self._stops()

  def after(self, step: int, state: TrainState) -> bool:
    """Measures at the steps it is asked to; returns whether the run is to stop."""
    if step % self._held.section.every:
      return False
    self._measure(step, state)
    return self._stops()

  def _measure(self, step: int, state: TrainState) -> None:
    found = {f"health/{key}": value for key, value in self._held(state).items()}
    line = self._add(step, found)
    if line:
      self._progress.say(line)
    on = bool(self._history and self._history.collapsed)
    rank = next(value for key, value in found.items() if key.endswith("rankme"))
    self._progress.note(f"{'COLLAPSE ' if on else ''}RankMe {rank:.3g}")
    self._writer.write(step, found | {ON: float(on)})

  def _add(self, step: int, found: Mapping[str, float]) -> str:
    self._known += 1
    return self._history.add(step, found) if self._history else ""

  def _stops(self) -> bool:
    """Returns whether all processes are to stop: the one that keeps the records decides."""
    if self._alarm is None or self._alarm.action != "stop":
      return False
    return distributed.agreed(self._history.collapsed)


def _records(workdir: pathlib.Path) -> list[dict[str, float]]:
  """Returns the lines of earlier measurements."""
  file = workdir / FILE
  rows = read_metrics(file) if file.is_file() else []
  return [row for row in rows if watched(row)]
