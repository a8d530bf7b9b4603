"""Counting what goes wrong: corrupt records, skipped steps, SIGTERM; and the rates of the meter."""

import os
import signal
import subprocess
import sys

import pytest

from ssljax.errors import UserError
from ssljax.training import meter as meters
from ssljax.training.watch import CorruptRecords, Diverged, SkippedSteps, stop_signal


def test_corrupt_records_are_named_once_and_stop_above_the_share():
  lines = []
  records = CorruptRecords(source="folder:x", total=100, limit=0.02, say=lines.append)
  for record in ("a: cut", "b: cut", "a: cut"):
    records.add((record,))
  assert len(records) == 2 and lines == ["corrupt record skipped: a: cut", "corrupt record skipped: b: cut"]
  with pytest.raises(UserError, match=r"folder:x: 3 of 100 records are corrupt.*max_corrupt=0.02; the first: a: cut"):
    records.add(("c: cut",))


def test_only_skipped_steps_in_a_row_stop_a_run():
  steps = SkippedSteps(limit=2, say=lambda line: None)
  for step, skipped in enumerate((1.0, 0.0, 1.0)):
    steps.add(step, {"train/skipped": skipped})
  with pytest.raises(Diverged, match="2 steps in a row were not finite, the last at step 3"):
    steps.add(3, {"train/skipped": 1.0})


def test_sigterm_is_seen_after_the_step_and_the_old_handler_returns():
  old = signal.getsignal(signal.SIGTERM)
  with stop_signal() as stop:
    assert not stop(1)
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop(2)
  assert signal.getsignal(signal.SIGTERM) is old


def test_a_step_that_takes_too_long_ends_the_process_with_a_trace():
  hang = """
import time
from ssljax.training.watch import time_limit
with time_limit(0.5) as limit:
  for step in range(2):
    limit()
    time.sleep(60 * step)  # the second step hangs here
"""
  ended = subprocess.run([sys.executable, "-c", hang], capture_output=True, text=True, timeout=60, check=False)
  assert ended.returncode == 1 and "Timeout (0:00:00.500000)!" in ended.stderr and "line 7" in ended.stderr


def test_rates(monkeypatch):
  clock = [0.0]
  monkeypatch.setattr(meters.time, "perf_counter", lambda: clock[0])
  meter = meters.Meter(examples=10, peak=100.0)

  def spend(seconds):
    clock[0] += seconds

  for _ in range(2):
    with meter.waiting(50):
      spend(1)
    spend(3)
  with meter.paused():
    spend(100)
  rates = meter.read()
  assert rates == {"train/examples_per_second": 2.5, "train/data_wait": 0.25, "train/mfu": 0.125}
  assert "train/mfu" not in meters.Meter(examples=1, peak=None).read()
