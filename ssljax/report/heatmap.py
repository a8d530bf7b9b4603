"""A matrix of numbers as an SVG table whose cells are coloured within their column."""

import dataclasses
import math
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from markupsafe import Markup, escape

from ssljax.errors import UserError
from ssljax.report.chart import Style

_CELL_HEIGHT, _HEAD, _GAP = 30, 24, 2
_LETTER, _PAD = 6.4, 14  # width of a letter of the style sheet's 11 pixels, and room beside a label
_NARROW, _WIDE, _ROW_LABEL = 66, 120, 220  # a column is at least and at most so wide, a row's label at most
_FAINT, _FULL = 0.04, 0.5  # how much colour the worst and the best cell of a column have; text stays readable on both


def heatmap(
  values: np.ndarray,
  *,
  rows: Sequence[str],
  columns: Sequence[str],
  better: Literal["higher", "lower"],
  unit: Literal["number", "percent"],
) -> Markup:
  """Returns an SVG element: the number in each cell, more colour where it is better than others of its column.

  Columns are coloured one by one since they may have different scales; a column of equal numbers has the middle
  colour. Colours come from the page's style sheet and follow light and dark. The numbers of a column have as many
  decimals as its median needs for three digits. A long label is cut: where the pointer rests it shows whole, and so do
  the numbers' further digits.

  Args:
    values: f64[R,C]; NaN is an empty cell with a dash, an infinite number has no colour.
    rows: R labels.
    columns: C labels.
    better: which numbers get more colour.
    unit: how numbers are shown: "percent" is of shares 0..1.

  Raises:
    UserError: `values` is empty or has not one row and column for each label.
  """
  values = np.asarray(values, np.float64)
  if values.shape != (len(rows), len(columns)) or not values.size:
    expected = f"{len(rows)} rows and {len(columns)} columns, at least one of each"
    raise UserError(f"heatmap: found values of shape {values.shape}, expected {expected}")
  table = _Table([_printable(r) for r in rows], [_printable(c) for c in columns], Style(unit))
  parts = [*table.labels(), *table.cells(values, _strengths(values, better))]
  size = f'viewBox="0 0 {table.width:.0f} {table.height:.0f}" style="max-width:{table.width:.0f}px"'
  about = f'role="img" aria-label="Table of {len(rows)} by {len(columns)} numbers, {better} is better"'
  return Markup(f'<svg {size} {about} xmlns="http://www.w3.org/2000/svg">' + "".join(parts) + "</svg>")


def _strengths(values: np.ndarray, better: str) -> np.ndarray:
  """Returns 0 (the column's worst) to 1 (its best) for each cell of values[R,C]; NaN where it is not finite."""
  finite = np.isfinite(values)
  half = np.where(finite, values if better == "higher" else -values, 0.0) / 2  # so that no difference overflows
  worst = np.min(half, axis=0, initial=np.inf, where=finite)
  best = np.max(half, axis=0, initial=-np.inf, where=finite)
  varies = best > worst
  spread = np.subtract(best, worst, out=np.ones_like(best), where=varies)
  share = np.divide(np.subtract(half, worst, out=np.zeros_like(half), where=finite), spread)
  return np.where(finite, np.where(varies, share, 0.5), np.nan)


@dataclasses.dataclass(frozen=True)
class _Table:
  """Where the cells lie in the picture."""

  rows: Sequence[str]
  columns: Sequence[str]
  style: Style

  @property
  def left(self) -> float:
    """Returns where the first column begins."""
    return min(_ROW_LABEL, max(map(_letters, self.rows)) * _LETTER + _PAD)

  @property
  def cell(self) -> float:
    """Returns the width of a column."""
    return min(_WIDE, max(_NARROW, max(map(_letters, self.columns)) * _LETTER + _PAD))

  @property
  def width(self) -> float:
    return self.left + self.cell * len(self.columns)

  @property
  def height(self) -> float:
    return _HEAD + _CELL_HEIGHT * len(self.rows)

  def labels(self) -> Iterator[str]:
    """Yields the names of the rows, at the left, and of the columns, on top."""
    for i, label in enumerate(self.rows):
      yield _text(label, self.left - 10, self._baseline(i), anchor="end", room=self.left)
    for j, label in enumerate(self.columns):
      yield _text(label, self._centre(j), _HEAD - 9, anchor="middle", room=self.cell)

  def cells(self, values: np.ndarray, strengths: np.ndarray) -> Iterator[str]:
    """Yields the numbers of values[R,C] on their colours, strengths[R,C] from 0 to 1."""
    for j, column in enumerate(values.T):
      shown = _shown(column, self.style)
      for i, value in enumerate(column):
        yield "<g>" + self._ground(i, j, strengths[i, j]) + self._number(i, j, float(value), shown[i]) + "</g>"

  def _ground(self, i: int, j: int, strength: float) -> str:
    """Returns the coloured field, of the first run's colour; none for what is not finite."""
    if math.isnan(strength):
      return ""
    x, y = self.left + j * self.cell + _GAP / 2, _HEAD + i * _CELL_HEIGHT + _GAP / 2
    place = f'x="{x:.1f}" y="{y:.1f}" width="{self.cell - _GAP:.1f}" height="{_CELL_HEIGHT - _GAP}" rx="3"'
    opacity = _FAINT + (_FULL - _FAINT) * strength
    return f'<rect class="run0" {place} fill="currentColor" fill-opacity="{opacity:.3f}"/>'

  def _number(self, i: int, j: int, value: float, shown: str) -> str:
    place = f'x="{self._centre(j):.1f}" y="{self._baseline(i):.1f}" text-anchor="middle"'
    if math.isnan(value):
      return f"<text {place}>—</text>"
    # The style sheet mutes the text of charts; here the numbers are what one reads.
    hint = escape(f"{self.rows[i]}, {self.columns[j]}: {value:.6g}")
    return f'<text {place} style="fill:var(--ink)">{escape(shown)}<title>{hint}</title></text>'

  def _centre(self, j: int) -> float:
    return self.left + (j + 0.5) * self.cell

  def _baseline(self, i: int) -> float:
    return _HEAD + (i + 0.5) * _CELL_HEIGHT + 4


def _shown(column: np.ndarray, style: Style) -> list[str]:
  """Returns the texts of a column's numbers, with the same number of decimals where they are of ordinary size."""
  finite = np.sort(np.abs(column[np.isfinite(column)]))
  middle = float(finite[len(finite) // 2]) if len(finite) else 0.0
  if style.unit == "percent" or not 1e-3 <= middle < 1e6 or finite[-1] >= 1e6:
    return [style.show(float(value)) for value in column]
  decimals = max(0, 2 - math.floor(math.log10(middle)))
  return [f"{value:,.{decimals}f}" if math.isfinite(value) else style.show(value) for value in column]


def _letters(label: str) -> int:
  """Returns the width of a label in Latin letters; those of Chinese, Japanese and Korean count twice."""
  return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in label)


def _text(label: str, x: float, y: float, *, anchor: str, room: float) -> str:
  """Returns a label, cut to the `room` there is; the whole one is its hint."""
  most, shown, hint = int((room - _PAD) / _LETTER + 1e-6), label, ""
  if _letters(label) > most:
    shown, hint = label[:most], f"<title>{escape(label)}</title>"
    while _letters(shown) >= most:
      shown = shown[:-1]
    shown = shown.rstrip() + "…"
  return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(shown)}{hint}</text>'


def _printable(label: str) -> str:
  """Returns the label without what would turn the text around or break the page: it may come from a file's name."""
  return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in str(label))
