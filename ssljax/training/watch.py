"""What may go wrong while a run goes on: collapse, corrupt records, steps not finite, a signal, a step to profile."""

import contextlib
import faulthandler
import pathlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping

import jax

from ssljax import distributed
from ssljax.errors import UserError
from ssljax.training.config import Profile
from ssljax.types import Array


class Preempted(Exception):
  """The process was asked to stop (SIGTERM); the state is saved and the same command goes on from it."""


class Diverged(Exception):
  """Too many steps in a row had a loss or a gradient that is not finite."""


class Collapsed(Exception):
  """The representation collapsed, and the run was asked to stop where it does; the state is saved."""


class CorruptRecords:
  """Names each corrupt record once and stops above a share.

  Args:
    source: its name, for messages.
    total: records it has.
    limit: share of them that may be corrupt.
    say: prints a line.
  """

  def __init__(self, *, source: str, total: int, limit: float, say: Callable[[str], None]):
    self._source, self._total, self._limit, self._say = source, total, limit, say
    self._seen: set[str] = set()

  def __len__(self) -> int:
    return len(self._seen)

  def add(self, records: tuple[str, ...]) -> None:
    """Counts records ("name: reason") that were skipped.

    Raises:
      UserError: there are more of them than the limit allows.
    """
    for record in records:
      if record not in self._seen:
        self._seen.add(record)
        self._say(f"corrupt record skipped: {record}")
    if len(self) > self._limit * self._total:
      share = f"{len(self)} of {self._total} records are corrupt, more than data.max_corrupt={self._limit}"
      raise UserError(f"{self._source}: {share}; the first: {min(self._seen)}")


class SkippedSteps:
  """Counts consecutive steps that were skipped because they were not finite."""

  def __init__(self, *, limit: int, say: Callable[[str], None]):
    self._limit, self._say, self._run = limit, say, 0

  def add(self, step: int, metrics: Mapping[str, Array]) -> None:
    """Looks at one step's metrics; blocks until the step is computed.

    Raises:
      Diverged: the limit of consecutive skipped steps is reached.
    """
    self._run = self._run + 1 if float(metrics["train/skipped"]) else 0
    if self._run:
      self._say(f"step {step}: loss or gradient not finite, step skipped")
    if self._run >= self._limit:
      raise Diverged(f"{self._run} steps in a row were not finite, the last at step {step}")


@contextlib.contextmanager
def stop_signal() -> Iterator[Callable[[int], bool]]:
  """Gives a function to call after each step: whether SIGTERM came, so that this step is to be the last.

  Of several processes all stop after the same step, whichever of them the signal came to. The old handler returns
  afterwards.
  """
  if jax.process_count() > 1:  # jax has its own handler, which a handler of ours would replace
    yield distributed.preempted
    return
  come = threading.Event()
  old = signal.signal(signal.SIGTERM, lambda *_: come.set())
  try:
    yield lambda step: come.is_set()
  finally:
    signal.signal(signal.SIGTERM, old)


@contextlib.contextmanager
def time_limit(seconds: float | None) -> Iterator[Callable[[], None]]:
  """Gives a function to call before each step: one that takes longer prints where every thread stands and ends.

  jax never notices a process that hangs in Python while the others wait for it.
  """
  try:
    yield lambda: faulthandler.dump_traceback_later(seconds, exit=True) if seconds else None
  finally:
    faulthandler.cancel_dump_traceback_later()


@contextlib.contextmanager
def profiler(section: Profile | None, folder: pathlib.Path) -> Iterator[Callable[[int], None]]:
  """Gives a function to call before each step, which starts and stops jax's profiler at the configured steps."""
  running = False

  def at(step: int) -> None:
    nonlocal running
    if section and running and step >= section.start + section.steps:
      jax.profiler.stop_trace()
      running = False
    if section and step == section.start:
      jax.profiler.start_trace(str(folder))
      running = True

  try:
    yield at
  finally:
    if running:
      jax.profiler.stop_trace()
