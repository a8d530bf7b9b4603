"""The curve of a run: one JSON line per write, and the same numbers for TensorBoard."""

import contextlib
import importlib
import json
import math
import os
import pathlib
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any, Self

from ssljax import distributed
from ssljax.errors import UserError

FILE = "metrics.jsonl"


class Writer:
  """Appends scalars to `metrics.jsonl` and to TensorBoard event files in a work directory.

  One process of a run holds one. It is a context manager; `close` flushes the events.
  """

  def __init__(self, workdir: str | os.PathLike, start_step: int = 0) -> None:
    """Opens the files of `workdir` (made if missing) to go on after `start_step`.

    Lines of later steps come from a run that was stopped after its last checkpoint: they are dropped, as is a line
    that was being written when the process died, so that the curve has each step once.

    Args:
      workdir: the directory of the run.
      start_step: optimiser steps already taken; 0 starts the curve anew.
    """
    directory = pathlib.Path(workdir)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / FILE
    if path.exists():
      _keep(path, start_step)
    self._lines = path.open("a", encoding="utf-8")
    self._events = _tensorboard().SummaryWriter(str(directory), purge_step=start_step + 1)

  def write(self, step: int, scalars: Mapping[str, Any]) -> None:
    """Appends one line {"step": step, name: value, ...}; it is in the file when this returns.

    Args:
      step: optimiser steps taken.
      scalars: numbers or arrays of one element by name, "group/name". What is not finite is written as null.
    """
    values = {name: float(value) for name, value in scalars.items()}
    finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
    self._lines.write(json.dumps({"step": int(step), **finite}) + "\n")
    self._lines.flush()
    for name, value in values.items():
      self._events.add_scalar(name, value, int(step))

  def close(self) -> None:
    """Flushes and closes both files."""
    self._lines.close()
    self._events.close()

  def __enter__(self) -> Self:
    """Returns self."""
    return self

  def __exit__(self, *exception: object) -> None:
    """Closes the files, whatever happened."""
    self.close()


def _tensorboard() -> types.ModuleType:
  """Returns tensorboardX, imported without torch: it would import that for graphs and tensors, which takes seconds."""
  with contextlib.ExitStack() as stack:
    if "torch" not in sys.modules:
      sys.modules["torch"] = None  # an import of it fails, as where it is not installed
      stack.callback(sys.modules.pop, "torch")
    return importlib.import_module("tensorboardX")


class Silence:
  """A writer that writes nothing: another process of the run does."""

  def write(self, step: int, scalars: Mapping[str, Any]) -> None:
    """Does nothing."""

  def close(self) -> None:
    """Does nothing."""


def open_writer(workdir: str | os.PathLike, start_step: int = 0) -> Writer | Silence:
  """Returns the writer of this process of a run: one of them writes."""
  return Writer(workdir, start_step) if distributed.is_main() else Silence()


def read_metrics(path: str | os.PathLike) -> list[dict[str, float]]:
  """Returns the lines of a `metrics.jsonl` in their order, null as NaN; a half-written last line is left out.

  Raises:
    UserError: there is no such file, or a line before the last is no JSON object with a whole "step".
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise UserError(f"{path}: found no file, expected the metrics of a run")
  return list(_rows(path))


def _rows(path: pathlib.Path) -> Iterator[dict[str, float]]:
  """Yields the rows; only complete lines (those that end) count."""
  with path.open(encoding="utf-8", errors="replace") as lines:
    for number, line in enumerate(lines, 1):
      row = _row(line)
      if row is not None:
        yield row
      elif line.endswith("\n"):
        raise UserError(f'{path} line {number}: found {line[:60].strip()!r}, expected {{"step": int, name: number}}')


def _row(line: str) -> dict[str, float] | None:
  """Returns a line's row, or None where it is none."""
  try:
    row = json.loads(line)
  except ValueError:
    return None
  if not isinstance(row, dict) or not isinstance(row.get("step"), int):
    return None
  if not all(value is None or is_number(value) for value in row.values()):
    return None
  return {name: math.nan if value is None else value for name, value in row.items()}


def is_number(value: object) -> bool:
  """Returns whether a value read from JSON is a number a float can hold (JSON's integers have no limit)."""
  return isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63)


def _keep(path: pathlib.Path, last_step: int) -> None:
  """Rewrites the file with the rows up to `last_step`, in one move: a crash leaves the old or the new file."""
  new = path.with_suffix(".tmp")
  with new.open("w", encoding="utf-8") as lines:
    for row in _rows(path):
      if row["step"] <= last_step:
        lines.write(json.dumps({name: None if math.isnan(value) else value for name, value in row.items()}) + "\n")
  os.replace(new, path)
