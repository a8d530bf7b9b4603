"""How fast a run goes: examples/s, share of time waiting for data, MFU where the device's peak is known."""

import contextlib
import time
from collections.abc import Iterator


class Meter:
  """Rates since the last reading; waiting for data counts, evaluations and checkpoints do not.

  Args:
    examples: examples a step.
    peak: FLOP/s of all devices together; None where it is not known.
  """

  def __init__(self, *, examples: int, peak: float | None):
    self._examples, self._peak = examples, peak
    self._restart()

  def _restart(self) -> None:
    self._since, self._waited, self._steps, self._operations = time.perf_counter(), 0.0, 0, 0

  @contextlib.contextmanager
  def waiting(self, operations: int) -> Iterator[None]:
    """Counts the time inside as waiting for the data of one step, of so many floating-point operations."""
    begun = time.perf_counter()
    yield
    self._waited += time.perf_counter() - begun
    self._steps += 1
    self._operations += operations

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Leaves the time inside out of the rates."""
    begun = time.perf_counter()
    yield
    self._since += time.perf_counter() - begun

  def read(self) -> dict[str, float]:
    """Returns the rates since the last reading and starts the next one."""
    elapsed = max(time.perf_counter() - self._since, 1e-9)
    rates = {
      "train/examples_per_second": self._examples * self._steps / elapsed,
      "train/data_wait": min(self._waited / elapsed, 1.0),
    }
    if self._peak:
      rates["train/mfu"] = self._operations / elapsed / self._peak
    self._restart()
    return rates
