"""Line charts as SVG text: no script, colours from the page's style sheet, so they follow light and dark."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from markupsafe import Markup, escape

_WIDTH, _HEIGHT = 520, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 12, 10, 24
_POINTS = 500  # drawn per line at most: longer curves are averaged in equal stretches of steps
_DOTS = 40  # a curve of at most so many points shows them
COLOURS = 6  # the style sheet has so many; further runs repeat them


@dataclasses.dataclass(frozen=True)
class Series:
  """One run's curve.

  Attributes:
    name: of the run, for tooltips.
    steps: f64[N], ascending.
    values: f64[N]; NaN breaks the line.
    colour: position of the run in the page.
    marks: steps at which something happened; a line stands there.
  """

  name: str
  steps: np.ndarray
  values: np.ndarray
  colour: int
  marks: Sequence[float] = ()


def number(value: float) -> str:
  """Returns a number in about three digits: 1,234, 12.3, 0.012, 1e-4."""
  if not math.isfinite(value):
    return "not finite"
  if value == 0 or 1e-3 <= abs(value) < 1e6:
    return f"{value:,.0f}" if abs(value) >= 100 or value == 0 else f"{value:.3g}"
  mantissa, exponent = f"{value:.2e}".split("e")
  return f"{float(mantissa):g}e{int(exponent)}"


def percent(value: float) -> str:
  """Returns a share as percent: 61.2 %."""
  return f"{100 * value:.1f} %" if math.isfinite(value) else "not finite"


@dataclasses.dataclass(frozen=True)
class Style:
  """How the values of a chart are shown.

  Attributes:
    unit: "number" or "percent" (of shares 0..1).
    start: where the axis begins: at the lowest value, or at zero.
  """

  unit: Literal["number", "percent"] = "number"
  start: Literal["lowest", "zero"] = "lowest"

  def show(self, value: float) -> str:
    """Returns one value as text."""
    return percent(value) if self.unit == "percent" else number(value)

  def show_tick(self, value: float, step: float) -> str:
    """Returns a tick as text, with as many decimals as a distance of `step` needs."""
    if self.unit == "percent":
      return f"{round(100 * value, 6):g} %"
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:,.{decimals}f}" if value and decimals <= 5 else number(value)


def line_chart(
  series: Sequence[Series],
  *,
  steps: tuple[float, float],
  style: Style = Style(),
  references: Iterable[tuple[str, float]] = (),
) -> Markup:
  """Returns an SVG element of the curves; at least one value is finite.

  Args:
    series: one curve a run; long noisy ones get a moving average over the pale raw curve.
    steps: first and last step of the axis.
    style: unit and axis.
    references: (name, value) of dashed horizontal lines.
  """
  references = sorted(((v, name) for name, v in references if math.isfinite(v)), reverse=True)
  curves = [_thinned(s) for s in series]
  finite = np.concatenate([s.values[np.isfinite(s.values)] for s in curves] + [[v for v, _ in references]])
  frame = _Frame(*_range(finite, style.start), *steps)
  parts = list(_axes(frame, style))
  parts += [_reference(frame, i, name, value) for i, (value, name) in enumerate(references)]
  parts += [part for s in curves for part in _curve(frame, s, style)]
  parts += [_mark(frame, s, step) for s in curves for step in s.marks]
  head = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" xmlns="http://www.w3.org/2000/svg">'
  return Markup(head + "".join(parts) + "</svg>")


@dataclasses.dataclass(frozen=True)
class _Frame:
  """Where values and steps lie in the picture."""

  low: float
  high: float
  first: float
  last: float

  def x(self, step: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (step - self.first) / max(self.last - self.first, 1)

  def y(self, value: float) -> float:
    return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * (value - self.low) / (self.high - self.low)


def ticks(low: float, high: float, count: int) -> list[float]:
  """Returns about `count` round numbers within [low, high]: multiples of 1, 2 or 5 times a power of ten."""
  rough = (high - low) / count
  power = 10.0 ** math.floor(math.log10(rough))
  step = power * next(m for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
  first = math.ceil(low / step - 1e-9)
  return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _range(values: np.ndarray, start: str) -> tuple[float, float]:
  low, high = float(values.min()), float(values.max())
  low = min(low, 0.0) if start == "zero" else low
  room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
  return (low if low == 0 else low - room), high + room


def _thinned(series: Series) -> Series:
  """Returns at most `_POINTS` points: means of equal stretches; a stretch with a NaN keeps its finite mean."""
  if len(series.steps) <= _POINTS:
    return series
  cuts = np.array_split(np.arange(len(series.steps)), _POINTS)
  mean = lambda v: float(np.mean(v[np.isfinite(v)])) if np.isfinite(v).any() else math.nan
  values = np.array([mean(series.values[cut]) for cut in cuts])
  return dataclasses.replace(series, steps=np.array([series.steps[cut].mean() for cut in cuts]), values=values)


def smoothed(values: np.ndarray) -> np.ndarray:
  """Returns the mean over about a thirtieth of the curve around each point, less at the ends; NaN stay NaN."""
  finite = np.isfinite(values)
  total = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
  count = np.concatenate([[0], np.cumsum(finite)])
  position, reach = np.arange(len(values)), len(values) // 60
  first, last = np.maximum(position - reach, 0), np.minimum(position + reach + 1, len(values))
  mean = (total[last] - total[first]) / np.maximum(count[last] - count[first], 1)
  return np.where(finite, mean, math.nan)


def _is_noisy(values: np.ndarray) -> bool:
  """True where the curve turns back at most points: an average then reads better."""
  steps = np.diff(values[np.isfinite(values)])
  return len(steps) > 60 and np.mean(steps[1:] * steps[:-1] < 0) > 0.3


def _axes(frame: _Frame, style: Style) -> Iterable[str]:
  values = ticks(frame.low, frame.high, 5)
  for value in values:
    y, text = frame.y(value), style.show_tick(value, values[-1] - values[-2] if len(values) > 1 else abs(value) or 1.0)
    yield f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    yield f'<text x="{_LEFT - 7}" y="{y + 3.5:.1f}" text-anchor="end">{escape(text)}</text>'
  for step in ticks(frame.first, max(frame.last, frame.first + 1), 5):
    x = frame.x(step)
    anchor = "end" if x > _WIDTH - _RIGHT - 14 else "middle"
    yield f'<text x="{x:.1f}" y="{_HEIGHT - 6}" text-anchor="{anchor}">{step:,.0f}</text>'


def _reference(frame: _Frame, position: int, name: str, value: float) -> str:
  """Returns a dashed line with its name: above it for the highest, below it for the others."""
  y = frame.y(value)
  dashed = f'<line class="reference" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
  baseline = y - 5 if position == 0 else y + 12
  return dashed + f'<text class="halo" x="{_WIDTH - _RIGHT}" y="{baseline:.1f}" text-anchor="end">{escape(name)}</text>'


def _mark(frame: _Frame, series: Series, step: float) -> str:
  """Returns a line over the whole height at a step, in the run's colour."""
  x = frame.x(step)
  hint = f"<title>{escape(series.name)}: collapse at step {step:,.0f}</title>"
  line = (
    f'<line class="mark run{series.colour % COLOURS}" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}">'
  )
  anchor, beside = ("end", x - 5) if x > _WIDTH / 2 else ("start", x + 5)
  text = f'<text class="halo" x="{beside:.1f}" y="{_TOP + 11}" text-anchor="{anchor}">collapse</text>'
  return f"{line}{hint}</line>{text}"


def _curve(frame: _Frame, series: Series, style: Style) -> Iterable[str]:
  colour, noisy = f"run{series.colour % COLOURS}", _is_noisy(series.values)
  if noisy:
    yield f'<path class="raw {colour}" d="{_path(frame, series.steps, series.values)}"/>'
  values = smoothed(series.values) if noisy else series.values
  yield f'<path class="curve {colour}" d="{_path(frame, series.steps, values)}"/>'
  if len(values) <= _DOTS:
    for step, value in zip(series.steps, series.values, strict=True):
      if math.isfinite(value):
        hint = escape(f"{series.name}: {style.show(value)} at step {step:,.0f}")
        where = f'cx="{frame.x(step):.1f}" cy="{frame.y(value):.1f}"'
        yield f'<circle class="{colour}" {where} r="2.6"><title>{hint}</title></circle>'


def _path(frame: _Frame, steps: np.ndarray, values: np.ndarray) -> str:
  """Returns SVG path data; the pen lifts at values that are not finite."""
  data, pen = [], "M"
  for step, value in zip(steps, values, strict=True):
    if math.isfinite(value):
      data.append(f"{pen}{frame.x(step):.1f} {frame.y(value):.1f}")
    pen = "L" if math.isfinite(value) else "M"
  return "".join(data)
