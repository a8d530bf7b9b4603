"""What a person sees while a run goes on: a bar in a terminal, a plain line every few seconds elsewhere."""

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import jax
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from ssljax import distributed

_PLAIN_SECONDS = 10.0  # between plain lines


class ProgressLine:
  """Shows step, loss, learning rate, examples/s, share of time waiting for data, MFU where known, time left.

  Args:
    total: the step the run ends at.
  """

  def __init__(self, total: int):
    self._total, self._start, self._begun, self._last = total, 0, time.monotonic(), 0.0
    self._note = ""
    self._console = Console(stderr=True)
    self._bar: Progress | None = None
    self._shown = distributed.is_main()
    if self._console.is_terminal and self._shown:
      columns = (
        TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[text]}"),
      )
      self._bar = Progress(*columns, console=self._console, refresh_per_second=4)
      self._task = self._bar.add_task("train", total=total, text="compiling")

  def __enter__(self) -> Self:
    if self._bar:
      self._bar.start()
    return self

  def __exit__(
    self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
  ) -> None:
    if self._bar:
      self._bar.stop()

  def warn(self, text: str) -> None:
    """Prints a line that this process alone knows of, above the bar."""
    if self._shown:
      self.say(text)
    else:
      print(f"process {jax.process_index()}: {text}", file=sys.stderr, flush=True)

  def say(self, text: str) -> None:
    """Prints a line above the bar; of several processes one does."""
    if not self._shown:
      return
    if self._bar:
      self._bar.console.print(text, markup=False, highlight=False)
    else:
      print(text, file=sys.stderr, flush=True)

  def note(self, text: str) -> None:
    """Shows a text in every line from now on, in the place of the one before."""
    self._note = text

  def begin(self, step: int) -> None:
    """Starts the clock of the time left; the run goes on from `step`."""
    self._start, self._begun = step, time.monotonic()
    self.advance(step)

  def update(self, step: int, metrics: Mapping[str, float]) -> None:
    """Shows the metrics of a step."""
    text = self._spell(step, metrics)
    if self._bar:
      self._bar.update(self._task, completed=step, text=text)
      return
    now = time.monotonic()
    if now - self._last >= _PLAIN_SECONDS or step >= self._total:
      self._last = now
      self.say(f"step {step}/{self._total}  {text}")

  def advance(self, step: int) -> None:
    """Moves the bar without new metrics."""
    if self._bar:
      self._bar.update(self._task, completed=step)

  def _spell(self, step: int, metrics: Mapping[str, float]) -> str:
    shown = [
      f"loss {metrics['train/loss']:.4f}",
      f"lr {metrics['train/learning_rate']:.2e}",
      f"{metrics['train/examples_per_second']:.0f} ex/s",
      f"data {100 * metrics['train/data_wait']:.1f}%",
    ]
    if "train/mfu" in metrics:
      shown.append(f"mfu {100 * metrics['train/mfu']:.1f}%")
    if self._note:
      shown.append(self._note)
    done = max(step - self._start, 1)
    left = (time.monotonic() - self._begun) / done * (self._total - step)
    return "  ".join([*shown, f"eta {_clock(left)}"])


def _clock(seconds: float) -> str:
  minutes, second = divmod(int(seconds), 60)
  hour, minute = divmod(minutes, 60)
  return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"
