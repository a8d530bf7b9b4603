"""`ssljax report`: one self-contained HTML page of one or several runs."""

import importlib.resources
import json
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jinja2
import numpy as np

from ssljax.errors import UserError
from ssljax.report import rundir
from ssljax.report.chart import COLOURS, Style, line_chart, number, percent
from ssljax.report.rundir import RunDir
from ssljax.writer import is_number

_STAGES = {"raw": "raw pixels", "ngram": "byte n-gram", "untrained": "untrained", "trained": "trained"}
_SHARES = ("knn", "linear_probe", "sgd_probe", "nearest_mean", "simple_cil", "teen")
_DIAGNOSTICS = ("_l2", "_gradient_norm")
_NAMES = {
  "knn": "kNN accuracy",
  "linear_probe": "Linear probe accuracy",
  "sgd_probe": "SGD probe accuracy",
  "nearest_mean": "Nearest mean, last session",
  "nearest_mean_average": "Nearest mean, average",
  "simple_cil": "SimpleCIL, last session",
  "simple_cil_average": "SimpleCIL, average",
  "teen": "TEEN, last session",
  "teen_average": "TEEN, average",
  "rankme": "RankMe",
  "feature_std": "Feature std",
} | {f"{group}/bits_per_byte": f"{group} bits per byte" for group in ("R", "S", "X", "C")}


class _Curve(NamedTuple):
  """One chart of the page: metric, title, what it says, its axis, and the number of a run that stands beside it."""

  key: str
  title: str
  about: str
  style: Style
  number: Literal["last", "median", "largest"] = "last"


_CURVES = (
  _Curve("train/loss", "Loss", "training", Style()),
  _Curve("train/learning_rate", "Learning rate", "largest", Style(start="zero"), "largest"),
  _Curve("eval/knn", "kNN accuracy", "frozen features", Style("percent")),
  _Curve("eval/rankme", "RankMe", "effective rank; a fall is collapse", Style()),
  _Curve("eval/linear_probe", "Linear probe accuracy", "frozen features", Style("percent")),
  _Curve("eval/feature_std", "Feature std", "0 is collapse", Style(start="zero")),
  *(
    _Curve(f"health/{name}_{key}", f"{title}, {name}", "held out, two views", style)
    for name in ("embedding", "projection")
    for key, title, style in (
      ("rankme", "RankMe", Style(start="zero")),
      ("feature_std", "Feature std", Style(start="zero")),
      ("alignment", "Alignment", Style(start="zero")),
      ("uniformity", "Uniformity", Style()),
    )
  ),
  *(
    _Curve(f"{group}/bits_per_byte", f"{group} bits per byte", "of the training batches", Style())
    for group in ("R", "S", "X", "C")
  ),
  _Curve("train/examples_per_second", "Throughput", "examples a second, median", Style(start="zero"), "median"),
  _Curve("train/data_wait", "Waiting for data", "share of the time, median", Style("percent", "zero"), "median"),
)


def write(dirs: Sequence[str | os.PathLike], out: str | os.PathLike) -> pathlib.Path:
  """Writes the page of the runs in `dirs` and returns its path.

  What a run does not have yet (evaluations, pictures) the page says.

  Raises:
    UserError: a directory is no work directory, two are the same, or `out` cannot be written.
  """
  out = pathlib.Path(out)
  html = render(dirs)
  try:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(html, encoding="utf-8")
  except OSError as error:
    raise UserError(f"--out: cannot write {out} ({error.strerror}), expected a writable path") from None
  return out


def render(dirs: Sequence[str | os.PathLike]) -> str:
  """Returns the page as text; see `write`."""
  paths = [pathlib.Path(directory) for directory in dirs]
  if len({path.resolve() for path in paths}) < len(paths):
    raise UserError("report: found a directory twice, expected each run once")
  runs = [rundir.read(path) for path in paths]
  text = importlib.resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
  environment = jinja2.Environment(
    autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
  )
  return environment.from_string(text).render(
    runs=runs,
    names=_NAMES,
    colours=COLOURS,
    facts=[_facts(run) for run in runs],
    headline=_headline(runs[0]) if len(runs) == 1 else "",
    columns=(columns := _columns(runs)),
    scores=[_scores(run, columns) for run in runs],
    diagnostics=_diagnostics(runs),
    charts=[chart for curve in _CURVES if (chart := _chart(runs, curve))],
    configs=[json.dumps(run.config, indent=2, sort_keys=True) for run in runs],
    title=", ".join(run.name for run in runs) if len(runs) <= 3 else f"{len(runs)} runs",
  )


def _facts(run: RunDir) -> dict[str, str]:
  """Returns the line of the table of runs."""
  objective, data = _section(run.config, "objective"), _section(run.config, "data")
  encoder = _section(objective, "encoder") or _section(objective, "model")
  parameters, seconds = run.summary.get("parameters"), run.summary.get("seconds")
  asked = run.config.get("steps")
  steps = f"{run.last_step:,}" + (f" of {asked:,}" if isinstance(asked, int) and asked != run.last_step else "")
  return {
    "Method": _short(objective.get("name")),
    "Encoder": _encoder(encoder),
    "Source": _source(run.config, data),
    "Batch": str(data.get("batch_size", "—")),
    "Steps": steps,
    "Parameters": number_of(parameters) if is_number(parameters) else "—",
    "Devices": str(run.summary.get("devices", "—")),
    "Time": duration(seconds) if is_number(seconds) else "—",
  }


def _source(config: dict[str, Any], data: dict[str, Any]) -> str:
  """Returns the source, or the names of the tasks."""
  tasks = config.get("stream")
  if isinstance(tasks, list) and tasks:
    return " → ".join(str(task.get("name")) for task in tasks if isinstance(task, dict))
  return str(data.get("source", "—"))


def _encoder(section: dict[str, Any]) -> str:
  """Returns "ViT Ti", "ResNet 50", or "ViT 128 wide, 4 deep" where the config gives sizes of its own."""
  width, depth = section.get("width"), section.get("depth")
  size = section.get("variant", "") if depth is None else depth
  if width is not None:
    size = f"{width} wide" + (f", {depth} deep" if depth is not None else "")
  return " ".join(filter(None, (_short(section.get("name"), ""), str(size)))) or "—"


def _section(config: dict[str, Any], key: str) -> dict[str, Any]:
  section = config.get(key)
  return section if isinstance(section, dict) else {}


def _short(name: Any, default: str = "—") -> str:
  """Returns the class of "mae.MAE" or "my_pkg.my_file:Mine"."""
  return str(name).replace(":", ".").rsplit(".", 1)[-1] if name else default


def number_of(count: float) -> str:
  """Returns a count as 950, 5.72 M, 1.2 G."""
  for limit, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
    if count >= limit:
      return f"{count / limit:.3g}{letter}"
  return f"{count:.0f}"


def duration(seconds: float) -> str:
  """Returns seconds as 45 s, 12 min 5 s, 3 h 20 min."""
  if not math.isfinite(seconds) or seconds < 60:
    return f"{seconds:.0f} s"
  minutes, rest = divmod(round(seconds), 60)
  return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _columns(runs: Sequence[RunDir]) -> list[str]:
  """Returns the metrics of the table of evaluations, the known ones first."""
  found = {key.split("/", 1)[1] for run in runs for key in run.final if _stage(key) and not _is_diagnostic(key)}
  known = [name for name in _NAMES if name in found]
  return known + sorted(found - set(known))


def _stage(key: str) -> str | None:
  stage, slash, _ = key.partition("/")
  return stage if slash and stage in _STAGES else None


def _is_diagnostic(key: str) -> bool:
  return key.endswith(_DIAGNOSTICS)


def _scores(run: RunDir, columns: Sequence[str]) -> list[dict[str, Any]]:
  """Returns a row for each stage that was measured: its name and a cell for each metric."""
  stages = [stage for stage in _STAGES if any(_stage(key) == stage for key in run.final)]
  return [
    {"stage": stage, "name": _STAGES[stage], "cells": [_cell(run, stage, metric) for metric in columns]}
    for stage in stages
  ]


def _cell(run: RunDir, stage: str, metric: str) -> dict[str, Any]:
  """Returns the text of a cell and, for a share, the length of its bar in percent."""
  value = run.final.get(f"{stage}/{metric}")
  if value is None:
    return {"text": "—", "bar": None}
  if not metric.startswith(_SHARES):
    return {"text": number(value), "bar": None}
  return {"text": percent(value), "bar": round(100 * min(max(value, 0.0), 1.0), 1) if math.isfinite(value) else None}


def _diagnostics(runs: Sequence[RunDir]) -> list[tuple[str, str, str]]:
  """Returns (run, key, value) of what the probes chose and how far they converged."""
  return [(run.name, key, number(run.final[key])) for run in runs for key in run.final if _is_diagnostic(key)]


def _headline(run: RunDir) -> str:
  """Returns the one sentence a reader wants first: the trained accuracy beside its baselines."""
  for metric in _SHARES:
    trained = run.final.get(f"trained/{metric}")
    if trained is not None:
      others = [(text, run.final.get(f"{stage}/{metric}")) for stage, text in _STAGES.items() if stage != "trained"]
      beside = ", ".join(f"{text} {percent(value)}" for text, value in others if value is not None)
      return f"{_NAMES[metric]} {percent(trained)}" + (f" ({beside})" if beside else "")
  return ""


def _chart(runs: Sequence[RunDir], curve: _Curve) -> dict[str, Any] | None:
  """Returns the parts of one chart: title, note, a number of each run, SVG; None where no run has the metric."""
  series = [found for i, run in enumerate(runs) if (found := run.series(curve.key, i))]
  if not series:
    return None
  chosen = {"last": lambda finite: finite[-1], "median": np.median, "largest": np.max}[curve.number]
  numbers = [(s.colour % COLOURS, curve.style.show(float(chosen(s.values[np.isfinite(s.values)])))) for s in series]
  svg = line_chart(series, steps=_steps(runs), style=curve.style, references=_references(runs, curve))
  return {"title": curve.title, "about": curve.about, "numbers": numbers, "svg": svg}


def _steps(runs: Sequence[RunDir]) -> tuple[float, float]:
  """Returns the first and the last step of all charts: 0, or where a run that goes on from another begins."""
  first, last = min(run.rows[0]["step"] for run in runs if run.rows), max(run.last_step for run in runs)
  return (0 if first <= 0.2 * last else first), last


def _references(runs: Sequence[RunDir], curve: _Curve) -> list[tuple[str, float]]:
  """Returns the baselines of an accuracy, where there is one run: several runs would have several."""
  metric = curve.key.removeprefix("eval/")
  if len(runs) > 1 or metric not in _SHARES:
    return []
  return [
    (_STAGES[s], runs[0].final[f"{s}/{metric}"]) for s in ("raw", "untrained") if f"{s}/{metric}" in runs[0].final
  ]
