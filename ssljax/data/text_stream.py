"""The stream of text batches: a pure function of (seed, step), like that of pictures (`pipeline.Stream`)."""

import bisect
import dataclasses
import functools
import threading
from collections.abc import Iterator

import numpy as np

from ssljax.data import plan as plans
from ssljax.data import rows
from ssljax.data.mixture import Mixture
from ssljax.data.pipeline import HostBatch, check, host_positions, index_words, prefetched
from ssljax.data.tokens import Tokens
from ssljax.data.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextStream:
  """An endless stream of batches of packed, corrupted text.

  Row i of step s is global row s * batch_size + i of the epochs' rows one after the other. Epochs differ a little in
  their number of rows; each plan is made when the stream gets there.

  Attributes:
    tokens: the documents' tokens.
    mixture: how they are corrupted and laid out.
    vocabulary: their ids.
    seed: decides order, cuts, denoisers and corruption.
    documents: whether denoisers share documents; see `plan.make`.
    batch_size: the GLOBAL batch, in rows; a multiple of `num_hosts`.
    host: which of the hosts this is, from 0.
    num_hosts: how many hosts read.
  """

  tokens: Tokens
  mixture: Mixture
  vocabulary: Vocabulary
  seed: int
  batch_size: int
  documents: plans.Documents = "shared"
  host: int = 0
  num_hosts: int = 1

  def __post_init__(self):
    check(self.batch_size, self.host, self.num_hosts)

  @functools.cached_property
  def _plans(self) -> "_Plans":
    return _Plans(self)

  def __getstate__(self):
    return {key: value for key, value in self.__dict__.items() if key != "_plans"}  # a worker makes its own

  def plan(self, epoch: int) -> plans.Plan:
    """Returns the plan of an epoch."""
    return self._plans.get(epoch)

  def batch(self, step: int) -> HostBatch:
    """Returns this host's rows of the batch of `step`; the same for ever, whatever was asked before.

    The arrays are those of `rows.layout` and `index` uint32[b,2], the position in the stream.
    """
    positions = host_positions(step, self.batch_size, self.host, self.num_hosts)
    return HostBatch(self.rows(positions) | {"index": index_words(positions)}, ())

  def read(self, positions: np.ndarray) -> HostBatch:
    """Returns the rows at positions int64[n] of the stream, in their order, without `index`."""
    order = np.argsort(positions, kind="stable")
    arrays = self.rows(positions[order])
    return HostBatch({key: value[np.argsort(order)] for key, value in arrays.items()}, ())

  @property
  def epoch_size(self) -> int:
    """Returns the positions of the first epoch, in rows."""
    return self.plan(0).rows

  def rows(self, positions: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the arrays of `rows.layout` for the stream's rows at positions int64[B], ascending."""
    parts, counts = [], []
    while len(positions):
      plan, begin = self._plans.at(int(positions[0]))
      rows_ = positions[positions < begin + plan.rows] - begin
      first, count = plan.starts[rows_], plan.starts[rows_ + 1] - plan.starts[rows_]
      parts.append(plan.examples.take(np.repeat(first - np.cumsum(count) + count, count) + np.arange(count.sum())))
      counts.append(count)
      positions = positions[len(rows_) :]
    examples = plans.Examples(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))
    return rows.layout(
      self.tokens.tokens, examples, np.concatenate(counts), mixture=self.mixture, vocabulary=self.vocabulary
    )

  def iterate(self, start: int = 0, *, workers: int = 0, threads: int = 2, prefetch: int = 4) -> Iterator[HostBatch]:
    """Yields the batches of steps `start`, `start` + 1, ... without end; see `pipeline.Stream.iterate`."""
    return prefetched(self.batch, start, 2**62, workers=workers, threads=threads, prefetch=prefetch)


class _Plans:
  """The plans of a stream, made one after the other; the last two are kept (batches are prepared ahead, in threads)."""

  def __init__(self, stream: TextStream):
    self._stream, self._lock = stream, threading.Lock()
    self._begins, self._kept = [0], {}

  def get(self, epoch: int) -> plans.Plan:
    """Returns the plan of an epoch."""
    with self._lock:
      return self._get(epoch)

  def at(self, position: int) -> tuple[plans.Plan, int]:
    """Returns the plan of the epoch that the row at `position` is in, and the position of its first row."""
    with self._lock:
      while self._begins[-1] <= position:
        self._begins.append(self._begins[-1] + self._get(len(self._begins) - 1).rows)
      epoch = bisect.bisect_right(self._begins, position) - 1
      return self._get(epoch), self._begins[epoch]

  def _get(self, epoch: int) -> plans.Plan:
    if epoch not in self._kept:
      while len(self._kept) > 1:
        del self._kept[min(self._kept)]
      s = self._stream
      self._kept[epoch] = plans.make(s.tokens.offsets, s.mixture, seed=s.seed, epoch=epoch, documents=s.documents)
    return self._kept[epoch]
