"""A stream of tasks: data sets one after the other, or mixed, with old examples among the new where replay is asked.

Like its parts it is a pure function of (seed, step): which example of which task stands in a row is computed, nothing
is stored, so a resume is exact. Buffers of replay are computed too: a buffer holds the examples whose random words
are the smallest among those seen, which is a uniform sample that only ever loses members to newer examples.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Literal

import numpy as np

from ssljax.data.permutation import mix, permute, words
from ssljax.data.pipeline import HostBatch, Stream, check, host_positions, index_words, prefetched
from ssljax.data.text_stream import TextStream
from ssljax.errors import UserError

Order = Literal["sequential", "joint"]
_REPLAY, _DECK = 0x5E91A7, 0xDECC  # uses of the seed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replay:
  """Experience replay: a share of each batch comes from the tasks before.

  Attributes:
    share: of the batch, at least 0 and below 1, rounded to rows; from the second task on.
    capacity: examples in the buffer, all together ("reservoir") or of each task ("per_task").
    buffer: reservoir: a uniform sample of all that was seen; per_task: one of each task.
  """

  share: float = 0.5
  capacity: int = 2000
  buffer: Literal["reservoir", "per_task"] = "reservoir"

  def __post_init__(self):
    if not 0 <= self.share < 1:
      raise UserError(f"continual.replay.share: found {self.share}, expected at least 0 and below 1")
    if self.capacity < 1:
      raise UserError(f"continual.replay.capacity: found {self.capacity}, expected at least 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskStream:
  """An endless stream over tasks; after the last one's steps it stays there.

  Attributes:
    streams: one a task, all of the same batch, seed and hosts.
    ends: the step each task ends before, ascending.
    seed: decides mixing and buffers.
    batch_size: the GLOBAL batch.
    order: sequential; or joint, all tasks in every batch, in proportion to their steps (it reads what sequential
      reads, each task in its own order).
    replay: None: no old examples.
    begin: the step of the first batch.
    host, num_hosts: which of the hosts this is.

  Raises:
    UserError: replay of joint tasks.
  """

  streams: tuple[Stream | TextStream, ...]
  ends: tuple[int, ...]
  seed: int
  batch_size: int
  order: Order = "sequential"
  replay: Replay | None = None
  begin: int = 0
  host: int = 0
  num_hosts: int = 1

  def __post_init__(self):
    check(self.batch_size, self.host, self.num_hosts)
    if self.order == "joint" and self.replay:
      raise UserError("continual.replay: found a section, expected none where continual.order is joint")

  def __getstate__(self):
    return {key: value for key, value in self.__dict__.items() if key not in ("_buffers", "_deck")}

  @property
  def epoch_size(self) -> int:
    """Returns the examples of all tasks, each once."""
    return sum(stream.epoch_size for stream in self.streams)

  def task(self, step: int) -> int:
    """Returns the number of the task that `step` is in."""
    return min(int(np.searchsorted(self.ends, step, side="right")), len(self.ends) - 1)

  def where(self, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns which example each row of the GLOBAL batch is: its task int64[B] and its position there int64[B]."""
    if self.order == "joint":
      return self._joint((step - self.begin) * self.batch_size + np.arange(self.batch_size))
    task = self.task(step)
    begin = self.ends[task - 1] if task else self.begin
    old = self._replayed(task)
    fresh = self.batch_size - int(old.sum())
    tasks = np.full(self.batch_size, task)
    positions = (step - begin) * fresh + np.cumsum(~old) - 1
    if old.any():
      buffer = self._buffers[task]
      draw = mix(words(self.seed, _REPLAY, step, count=1) ^ np.flatnonzero(old).astype(np.uint64))
      chosen = (draw >> np.uint64(32)) * np.uint64(len(buffer)) >> np.uint64(32)
      tasks[old], positions[old] = buffer[chosen.astype(np.int64)].T
    return tasks, positions

  def _replayed(self, task: int) -> np.ndarray:
    """Returns which rows of a task's batches are old examples, bool[B], spread evenly."""
    count = round(self.replay.share * self.batch_size) if self.replay and task else 0
    reached = np.arange(self.batch_size + 1) * count // self.batch_size
    return np.diff(reached) > 0

  @functools.cached_property
  def _buffers(self) -> dict[int, np.ndarray]:
    """The buffer int64[M,2] of (task, position) at the beginning of each task but the first."""
    assert self.replay is not None
    kept, buffers, begin = np.zeros((0, 2), np.int64), {}, self.begin
    for task, end in enumerate(self.ends[:-1]):
      fresh = self.batch_size - int(self._replayed(task).sum())
      seen = min((end - begin) * fresh, self.streams[task].epoch_size)
      begin = end
      new = np.stack([np.full(seen, task), np.arange(seen)], axis=1)
      if self.replay.buffer == "per_task":
        kept = np.concatenate([kept, self._smallest(new)])
      else:
        kept = self._smallest(np.concatenate([kept, self._smallest(new)]))
      buffers[task + 1] = kept
    return buffers

  def _smallest(self, examples: np.ndarray) -> np.ndarray:
    """Returns the `capacity` of examples int64[N,2] whose random words are the smallest, in the order given."""
    assert self.replay is not None
    tasks, positions = examples.T.astype(np.uint64)
    word = mix(mix(words(self.seed, _REPLAY, count=1) ^ tasks) + positions)
    return examples[np.sort(np.argsort(word, kind="stable")[: self.replay.capacity])]

  @functools.cached_property
  def _deck(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pattern in which joint tasks take turns: (task, number among the task's) int64[D] each, rows a task has."""
    steps = np.diff(self.ends, prepend=self.begin)
    rows = steps // math.gcd(*steps.tolist())
    tasks = np.repeat(np.arange(len(rows)), rows)
    tasks = tasks[permute(np.arange(len(tasks)), size=len(tasks), key=(self.seed, _DECK))]
    number = np.empty_like(tasks)
    for task, count in enumerate(rows):
      number[tasks == task] = np.arange(count)
    return tasks, number, rows

  def _joint(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    tasks, number, rows = self._deck
    deck, place = np.divmod(positions, len(tasks))
    return tasks[place], deck * rows[tasks[place]] + number[place]

  def batch(self, step: int) -> HostBatch:
    """Returns this host's part of the batch of `step`.

    The arrays are those of the tasks' streams without labels (each task has its own classes), `index` uint32[b,2],
    the row's place in this stream, and `task` int32[b], the number of the task it comes from.
    """
    index = host_positions(step, self.batch_size, self.host, self.num_hosts)
    mine = index - step * self.batch_size
    tasks, positions = (values[mine] for values in self.where(step))
    arrays, skipped = {}, ()
    for task in np.unique(tasks):
      rows = np.flatnonzero(tasks == task)
      part = self.streams[task].read(positions[rows])
      skipped += part.skipped
      for key, value in part.arrays.items():
        arrays.setdefault(key, np.empty((len(tasks), *value.shape[1:]), value.dtype))[rows] = value
    arrays.pop("label", None)
    return HostBatch(arrays | {"index": index_words(index), "task": tasks.astype(np.int32)}, skipped)

  def iterate(self, start: int = 0, *, workers: int = 0, threads: int = 2, prefetch: int = 4) -> Iterator[HostBatch]:
    """Yields the batches of steps `start`, `start` + 1, ... without end; see `pipeline.Stream.iterate`."""
    return prefetched(self.batch, start, 2**62, workers=workers, threads=threads, prefetch=prefetch)
