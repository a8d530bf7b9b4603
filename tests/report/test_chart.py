import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssljax.report import chart
from ssljax.report.chart import Series, Style


def series(values, *, name="run", colour=0):
  return Series(name, np.arange(1.0, len(values) + 1), np.asarray(values, float), colour)


def draw(*curves, **settings):
  """The parsed SVG: it has to be well formed."""
  text = chart.line_chart(curves, steps=(0, max(c.steps[-1] for c in curves)), **settings)
  return ElementTree.fromstring(text)


def by_class(svg, name):
  return [e for e in svg if name in e.get("class", "").split()]


def points(path):
  return [tuple(map(float, pair.split())) for pair in re.findall(r"[ML]([^ML]+)", path.get("d"))]


@pytest.mark.parametrize(
  ("value", "text"),
  [
    (1234.4, "1,234"),
    (12.34, "12.3"),
    (0.0123, "0.0123"),
    (1e-4, "1e-4"),
    (0, "0"),
    (-2.5e7, "-2.5e7"),
    (math.nan, "not finite"),
  ],
)
def test_number(value, text):
  assert chart.number(value) == text


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e6), st.integers(3, 7))
def test_ticks_are_round_and_inside(low, width, count):
  high = low + width
  values = chart.ticks(low, high, count)
  assert 1 <= len(values) <= 2.6 * count
  assert all(low - 1e-6 * width <= v <= high + 1e-6 * width for v in values)


def test_a_mark_stands_at_its_step_in_the_runs_colour():
  svg = draw(Series("<run>", np.array([0.0, 50.0, 100.0]), np.array([3.0, 2.0, 1.0]), 1, marks=(50,)))
  (line,), (x, _) = by_class(svg, "mark"), points(by_class(svg, "curve")[0])[1]
  assert float(line.get("x1")) == float(line.get("x2")) == pytest.approx(x) and "run1" in line.get("class")
  assert line[0].text == "<run>: collapse at step 50"
  assert not by_class(draw(series([1.0, 2.0])), "mark")


def test_points_lie_where_the_values_are():
  svg = draw(series([0.0, 1.0, 0.5]), style=Style(start="zero"))
  (path,) = by_class(svg, "curve")
  (x0, y0), (x1, y1), (x2, y2) = points(path)
  assert x0 < x1 < x2 and math.isclose(x1 - x0, x2 - x1, abs_tol=0.11)
  assert y1 < y2 < y0  # the axis points up
  assert math.isclose(y2, (y0 + y1) / 2, abs_tol=0.11)


def test_the_line_breaks_at_what_is_not_finite():
  (path,) = by_class(draw(series([1, 2, math.nan, math.inf, 3, 4])), "curve")
  assert path.get("d").count("M") == 2 and len(points(path)) == 4


def test_noise_is_averaged_over_the_pale_curve():
  rng = np.random.default_rng(0)
  svg = draw(series(rng.normal(size=400)))
  (raw,), (curve,) = by_class(svg, "raw"), by_class(svg, "curve")
  spread = lambda path: np.std([y for _, y in points(path)])
  assert spread(curve) < 0.5 * spread(raw)
  assert not by_class(draw(series(np.linspace(0, 1, 400))), "raw")


def test_smoothed_equals_loops():
  values = np.random.default_rng(0).normal(size=130)
  values[[3, 50]] = math.nan
  expected = [math.nan if math.isnan(v) else np.nanmean(values[max(i - 2, 0) : i + 3]) for i, v in enumerate(values)]
  np.testing.assert_allclose(chart.smoothed(values), expected)


def test_long_curves_are_averaged_in_stretches():
  curve = series(np.repeat([1.0, math.nan, 3.0], 1000))
  thin = chart._thinned(curve)
  assert len(thin.steps) == 500 and thin.steps[0] == 3.5
  assert set(thin.values[np.isfinite(thin.values)]) == {1.0, 3.0}


def test_references_names_and_hints_are_escaped():
  svg = draw(series([1, 2], name='<script>"'), references=[("<b>", 1.5)])
  text = chart.line_chart([series([1, 2], name='<script>"')], steps=(0, 2), references=[("<b>", 1.5)])
  assert "<script" not in text and "<b>" not in text
  assert len(by_class(svg, "reference")) == 1


@pytest.mark.parametrize("values", [[5.0], [0.0, 0.0], [1e-9, 1e-9], [-3.0, -3.0], [1e12, 1.0]])
def test_degenerate_curves(values):
  svg = draw(series(values))
  assert [e for e in svg if e.tag.endswith("text")]
  assert "nan" not in ElementTree.tostring(svg, encoding="unicode")


def test_tick_texts():
  assert [Style().show_tick(v, 0.2) for v in (0, 0.8, 1.0)] == ["0", "0.8", "1.0"]
  assert Style().show_tick(2000, 500) == "2,000"
  assert Style().show_tick(2e-7, 1e-7) == "2e-7"
  assert Style("percent").show_tick(0.55, 0.05) == "55 %"
