"""What the report reads of a work directory. It may come from anywhere: sizes are limited, nothing is trusted."""

import base64
import dataclasses
import functools
import json
import math
import pathlib
from typing import Any

import numpy as np

from ssljax import build
from ssljax.errors import UserError
from ssljax.evaluators import collapse
from ssljax.report import known
from ssljax.report.chart import Series
from ssljax.report.known import Known
from ssljax.writer import FILE, is_number, read_metrics

MAX_JSON = 2**21  # bytes of config.json, eval/final.json, summary.json, captions.json
MAX_METRICS = 2**28  # bytes of metrics.jsonl
MAX_PICTURE = 8 * 2**20  # bytes of one picture
MAX_PICTURES = 40  # of one run
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclasses.dataclass(frozen=True)
class Picture:
  """A picture of a run: its caption and the PNG as a data URL; "" where it was left out, and the caption says why."""

  caption: str
  url: str


@dataclasses.dataclass(frozen=True)
class RunDir:
  """The contents of one work directory.

  Attributes:
    name: of the directory.
    config: config.json.
    rows: metrics.jsonl, by step.
    final: eval/final.json, flat "raw/knn", "untrained/knn", "trained/knn" -> number; empty where there is none.
    summary: summary.json: "parameters" (count), "devices" (text), "seconds"; empty where there is none.
    pictures: pictures/*.png by file name.
    known: eval/continual.json, one score a table; [] where the run has no tasks.
  """

  name: str
  config: dict[str, Any]
  rows: list[dict[str, float]]
  final: dict[str, float]
  summary: dict[str, Any]
  pictures: list[Picture]
  known: list[Known]

  def series(self, key: str, colour: int) -> Series | None:
    """Returns the curve of one metric; None where no line has a finite value of it."""
    rows = [(row["step"], row[key]) for row in self.rows if key in row]
    if not any(math.isfinite(value) for _, value in rows):
      return None
    steps, values = np.array(rows, np.float64).T
    return Series(self.name, steps, values, colour, marks=tuple(self.collapses) if key.startswith("health/") else ())

  @property
  def last_step(self) -> int:
    """Optimiser steps at the last line of metrics."""
    return int(self.rows[-1]["step"]) if self.rows else 0

  @functools.cached_property
  def collapses(self) -> dict[int, str]:
    """The alarms of collapse by step, as they were said."""
    return collapse.told(self.rows, _alarm(self.config))

  @property
  def broken(self) -> int:
    """Lines of metrics whose loss is not finite."""
    return sum(math.isnan(row.get("train/loss", 0.0)) for row in self.rows)


def read(directory: pathlib.Path) -> RunDir:
  """Returns what a work directory holds.

  Raises:
    UserError: no such directory, no config.json or metrics.jsonl in it, or one of its files is broken or too large.
  """
  directory = pathlib.Path(directory)
  for name in ("config.json", FILE):
    if not (directory / name).is_file():
      raise UserError(f"{directory}: found no {name}, expected the work directory of a run")
  _check_size(directory / FILE, MAX_METRICS)
  final = {k: float(v) for k, v in _json(directory / "eval" / "final.json").items() if is_number(v)}
  tasks_file = directory / "eval" / "continual.json"
  return RunDir(
    name=directory.resolve().name,
    config=_json(directory / "config.json"),
    rows=sorted(read_metrics(directory / FILE), key=lambda row: row["step"]),
    final=_staged(final),
    summary=_json(directory / "summary.json"),
    pictures=_pictures(directory / "pictures"),
    known=known.read(_json(tasks_file), final, path=tasks_file),
  )


def _alarm(config: dict[str, Any]) -> collapse.Alarm:
  """Returns the alarm of a config, the default one where it has none that could be read."""
  section = config.get("health")
  alarm = section.get("alarm") if isinstance(section, dict) else None
  try:
    return build.construct(collapse.Alarm, alarm if isinstance(alarm, dict) else {})
  except UserError:
    return collapse.Alarm()


def _staged(final: dict[str, float]) -> dict[str, float]:
  """Returns scores as "stage/metric": a text model's "R/bits_per_byte" is the trained one's.

  The n-gram knows no groups of denoisers: its one number stands beside each.
  """
  bits = "/bits_per_byte"
  groups = [key.removesuffix(bits) for key in final if key.endswith(bits) and key.count("/") == 1 and key[0] != "n"]
  staged = {f"trained/{key}" if key.removesuffix(bits) in groups else key: value for key, value in final.items()}
  ngram = staged.pop(f"ngram{bits}", None)
  return staged | ({f"ngram/{group}{bits}": ngram for group in groups} if ngram is not None else {})


def _check_size(path: pathlib.Path, limit: int) -> None:
  size = path.stat().st_size
  if size > limit:
    raise UserError(f"{path}: found {size:,} bytes, expected at most {limit:,}")


def _json(path: pathlib.Path) -> dict[str, Any]:
  """Returns the object in a JSON file, {} where there is no file."""
  if not path.is_file():
    return {}
  _check_size(path, MAX_JSON)
  try:
    content = json.loads(path.read_text(encoding="utf-8"))
  except (ValueError, RecursionError) as error:
    raise UserError(f"{path}: found no valid JSON ({type(error).__name__}), expected an object") from None
  if not isinstance(content, dict):
    raise UserError(f"{path}: found a {type(content).__name__}, expected an object")
  return content


def _pictures(directory: pathlib.Path) -> list[Picture]:
  files = sorted(directory.glob("*.png")) if directory.is_dir() else []
  captions = _json(directory / "captions.json")
  pictures = [_picture(path, str(captions.get(path.name, path.stem))) for path in files[:MAX_PICTURES]]
  left = len(files) - MAX_PICTURES
  return pictures + ([Picture(f"{left} more pictures are in {directory.name}/", "")] if left > 0 else [])


def _picture(path: pathlib.Path, caption: str) -> Picture:
  size = path.stat().st_size
  if size > MAX_PICTURE:
    return Picture(f"{caption} (left out: {path.name} has {size:,} bytes, the limit is {MAX_PICTURE:,})", "")
  content = path.read_bytes()
  if not content.startswith(_PNG):
    return Picture(f"{caption} (left out: {path.name} is no PNG)", "")
  return Picture(caption, "data:image/png;base64," + base64.b64encode(content).decode("ascii"))
