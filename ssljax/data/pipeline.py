"""The stream of batches: a pure function of (seed, step).

Local row i of host h at step s is global row s*B + h*b + i of an endless permutation of the records (b = B / hosts,
shuffled anew each epoch; an epoch may end inside a batch). So the state of the stream is one integer, a resume is
exact, and neither workers nor hosts nor devices change the order.
"""

import atexit
import contextlib
import dataclasses
import multiprocessing
import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import numpy as np

from ssljax.data.captions import Captioner
from ssljax.data.clusters import Clusters
from ssljax.data.permutation import shuffled
from ssljax.data.source import Source
from ssljax.errors import UserError

MAX_RUN = 100  # corrupt records in a row after which it is the data set that is broken, not a record


class _Read(NamedTuple):
  """Records as `Source.read` gives them, their captions (none without a captioner) and why some cannot be used."""

  arrays: dict[str, np.ndarray]
  captions: list[tuple[str, ...]]
  errors: dict[int, str]


class HostBatch(NamedTuple):
  """One host's part of a batch, b = batch_size / num_hosts.

  Attributes:
    arrays: `image` uint8[b,S,S,3], `aspect` f32[b], `label` int32[b] if there are labels, `text` int32[b,L] (or `texts`
      int32[b,2,L]) if there is a captioner, `index` uint32[b,2] (the position in the stream as high and low words);
      `epoch` adds `valid` bool[b].
    skipped: "name: reason" of each record that could not be decoded.
  """

  arrays: dict[str, np.ndarray]
  skipped: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Stream:
  """An endless stream of batches from a source.

  Attributes:
    source: where the records come from.
    seed: chooses the order; nothing else about a batch depends on it.
    batch_size: the GLOBAL batch, in examples; a multiple of `num_hosts`.
    host: which of the hosts this is, from 0.
    num_hosts: how many hosts read.
    shuffle: "epoch" permutes all the records anew in each epoch; "none" keeps the source's order.
    captioner: makes `text` (or `texts`) of the source's captions; None: pictures alone.
    clusters: spread evenly over each epoch, so that neighbours are of different ones; None: no clusters.
  """

  source: Source
  _: dataclasses.KW_ONLY
  seed: int
  batch_size: int
  host: int = 0
  num_hosts: int = 1
  shuffle: Literal["epoch", "none"] = "epoch"
  captioner: Captioner | None = None
  clusters: Clusters | None = None

  def __post_init__(self):
    check(self.batch_size, self.host, self.num_hosts)
    if self.shuffle not in ("epoch", "none"):
      raise UserError(f"data.shuffle: found {self.shuffle!r}, expected epoch or none")

  def batch(self, step: int) -> HostBatch:
    """Returns this host's part of the batch of `step`; the same for ever, whatever was asked before.

    A record that cannot be decoded, or has no caption where there is a captioner, gives its place to the next good one
    in the source's order.

    Raises:
      UserError: 100 records in a row cannot be used.
    """
    positions = host_positions(step, self.batch_size, self.host, self.num_hosts)
    arrays, skipped = self.read(positions)
    return HostBatch(arrays | {"index": index_words(positions)}, skipped)

  def read(self, positions: np.ndarray) -> HostBatch:
    """Returns the records at positions int64[n] of the stream, in their order, without `index`; see `batch`."""
    rows = self.rows(positions)
    read = self._read(rows)
    skipped = [self._skip(read, i, int(rows[i]), reason) for i, reason in sorted(read.errors.items())]
    if self.captioner is not None:
      read.arrays[self.captioner.section.key] = self.captioner.rows(read.captions, seed=self.seed, positions=positions)
    return HostBatch(read.arrays, tuple(dict.fromkeys(line for lines in skipped for line in lines)))

  @property
  def epoch_size(self) -> int:
    """Returns the positions of an epoch: the source's records."""
    return len(self.source)

  def rows(self, positions: np.ndarray) -> np.ndarray:
    """Returns the source rows int64[n] at positions int64[n] of the endless permutation."""
    if self.shuffle == "none":
      return positions % len(self.source)
    if self.clusters is not None:
      return self.clusters.rows(positions, seed=self.seed)
    return shuffled(positions, size=len(self.source), seed=self.seed)

  def _read(self, rows: np.ndarray) -> "_Read":
    arrays, errors = self.source.read(rows)
    if self.captioner is None:
      return _Read(arrays, [], errors)
    captions = self.source.captions(rows)
    missing = {i: "no caption" for i, texts in enumerate(captions) if not texts}
    return _Read(arrays, captions, missing | errors)

  def _skip(self, read: "_Read", place: int, row: int, reason: str) -> list[str]:
    """Fills `place` with the next good record after `row`, and returns a line for each bad one met."""
    skipped = []
    for offset in range(MAX_RUN):
      skipped.append(f"{self.source.name((row + offset) % len(self.source))}: {reason}")
      after = self._read(np.array([(row + offset + 1) % len(self.source)]))
      if not after.errors:
        for key, value in after.arrays.items():
          read.arrays[key][place] = value[0]
        read.captions[place : place + 1] = after.captions
        return skipped
      reason = after.errors[0]
    raise UserError(f"data: {MAX_RUN} records in a row cannot be used, the first is {skipped[0]}")

  def iterate(self, start: int = 0, *, workers: int = 0, threads: int = 2, prefetch: int = 4) -> Iterator[HostBatch]:
    """Yields the batches of steps `start`, `start` + 1, ... without end; close the iterator to stop the readers.

    Args:
      start: the first step.
      workers: processes that prepare batches; 0 reads in threads of this process, which is the faster for images
        (the decoders release the GIL) until Python itself is the limit. A pool takes seconds to start.
      threads: batches prepared at once, in each process.
      prefetch: batches held ready, in each process.
    """
    return prefetched(self.batch, start, 2**62, workers=workers, threads=threads, prefetch=prefetch)


def epoch(
  source: Source, batch_size: int, *, host: int = 0, num_hosts: int = 1, threads: int = 2
) -> Iterator[HostBatch]:
  """Yields each record once, in the source's order, for evaluation; all batches have one shape.

  `valid` bool[b] is False where a row is padding (the last batch repeats the last record) or cannot be decoded; every
  host gives the same number of batches.
  """
  check(batch_size, host, num_hosts)

  def batch(step: int) -> HostBatch:
    positions = host_positions(step, batch_size, host, num_hosts)
    rows = np.minimum(positions, len(source) - 1)
    arrays, errors = source.read(rows)
    valid = positions < len(source)
    skipped = tuple(f"{source.name(int(rows[i]))}: {reason}" for i, reason in errors.items() if valid[i])
    valid[list(errors)] = False
    return HostBatch(arrays | {"index": index_words(positions), "valid": valid}, skipped)

  return prefetched(batch, 0, -(-len(source) // batch_size), threads=threads)


def prefetched(
  batch: Callable[[int], HostBatch], start: int, stop: int, *, workers: int = 0, threads: int = 2, prefetch: int = 4
) -> Iterator[HostBatch]:
  """Returns batch(start), ..., batch(stop - 1) in order, prepared ahead by grain in threads or worker processes."""
  batches = _prefetched(batch, start, stop, workers=workers, threads=threads, prefetch=prefetch)
  reference = weakref.ref(batches)

  def close() -> None:  # an iterator left open would fail inside grain while the interpreter shuts down
    if (left_open := reference()) is not None:
      with contextlib.suppress(ValueError):  # another thread is inside it
        left_open.close()

  atexit.register(close)
  return batches


def _prefetched(
  batch: Callable[[int], HostBatch], start: int, stop: int, *, workers: int, threads: int, prefetch: int
) -> Iterator[HostBatch]:
  import grain  # 1.3 s: not for those who only name a source

  dataset = grain.MapDataset.range(start, stop).map(batch)
  dataset = dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch))
  if workers:
    _parse_absl_flags()
    options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=prefetch)
    dataset = dataset.mp_prefetch(options, worker_init_fn=_start_worker)
  with contextlib.closing(iter(dataset)) as batches:
    for arrays, skipped in batches:
      # A worker's arrays lie in shared memory, which must not outlive the pool: copy them out.
      yield HostBatch({key: np.array(value) for key, value in arrays.items()} if workers else arrays, skipped)


def _start_worker(worker: int, workers: int) -> None:
  """Lets a worker end with the process that reads, and not before.

  SLURM sends SIGTERM to all processes, and the last steps still need their batches. A reader that is killed tells
  nobody: its workers would wait for ever for room in a queue.
  """
  del worker, workers
  signal.signal(signal.SIGTERM, signal.SIG_IGN)
  threading.Thread(target=_end_with_the_reader, daemon=True).start()


def _end_with_the_reader() -> None:
  reader = multiprocessing.parent_process()
  assert reader is not None  # a worker has one
  reader.join()
  os._exit(1)


def _parse_absl_flags() -> None:
  """Marks absl's flags as parsed: grain's workers read them, and this program is not started through absl."""
  from absl import flags

  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()


def check(batch_size: int, host: int, num_hosts: int) -> None:
  """Returns nothing.

  Raises:
    UserError: a batch the hosts do not divide, or a host that is none of them.
  """
  if batch_size < 1 or batch_size % num_hosts:
    raise UserError(f"data.batch_size: found {batch_size}, expected a positive multiple of the {num_hosts} hosts")
  if not 0 <= host < num_hosts:
    raise UserError(f"data: host {host} of {num_hosts}, expected 0 to {num_hosts - 1}")


def host_positions(step: int, batch_size: int, host: int, num_hosts: int) -> np.ndarray:
  """Returns the places in the stream of a host's rows at a step, int64[batch_size / num_hosts]."""
  local = batch_size // num_hosts
  return step * batch_size + host * local + np.arange(local, dtype=np.int64)


def index_words(positions: np.ndarray) -> np.ndarray:
  """Returns positions int64[n] as high and low words, uint32[n,2]."""
  return np.stack([positions >> 32, positions & 0xFFFF_FFFF], axis=-1).astype(np.uint32)
