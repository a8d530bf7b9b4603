import math
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from ssljax.errors import UserError
from ssljax.report.heatmap import heatmap

SVG = "{http://www.w3.org/2000/svg}"


def draw(values, *, rows=None, columns=None, better="higher", unit="number"):
  """The parsed SVG: it has to be well formed."""
  values = np.asarray(values, float)
  rows = [f"r{i}" for i in range(len(values))] if rows is None else rows
  columns = [f"c{j}" for j in range(values.shape[1])] if columns is None else columns
  return ElementTree.fromstring(heatmap(values, rows=rows, columns=columns, better=better, unit=unit))


def cells(svg):
  """{(left, top) of the text: (what it says, opacity of the field or None, hint or None)}, by rows then columns."""
  found = {}
  for group in svg.iter(SVG + "g"):
    text, rect = group.find(SVG + "text"), group.find(SVG + "rect")
    opacity = None if rect is None else float(rect.get("fill-opacity"))
    found[float(text.get("y")), float(text.get("x"))] = text.text, opacity, text.findtext(SVG + "title")
  return [found[place] for place in sorted(found)]


def labels(svg):
  return [(text.text, text.findtext(SVG + "title")) for text in svg.findall(SVG + "text")]


def test_numbers_stand_under_their_column_and_beside_their_row():
  svg = draw([[1.5, 2.5, 3.5], [4.5, 5.5, 6.5]], rows=["a", "b"], columns=["x", "y", "z"])
  assert [text for text, _, _ in cells(svg)] == ["1.50", "2.50", "3.50", "4.50", "5.50", "6.50"]
  at = {text.text: (float(text.get("x")), float(text.get("y"))) for text in svg.iter(SVG + "text")}
  assert at["5.50"][0] == at["y"][0] == at["2.50"][0] and at["5.50"][1] == at["b"][1] == at["4.50"][1]
  assert cells(svg)[5][2] == "b, z: 6.5"
  _, _, width, height = map(float, svg.get("viewBox").split())
  for rect in svg.iter(SVG + "rect"):
    x, y, w, h = (float(rect.get(key)) for key in ("x", "y", "width", "height"))
    assert x > 0 and x + w <= width and y > 0 and y + h <= height


def test_numbers_of_a_column_have_equal_decimals():
  values = [[8, 8.0, 0.01, 1e-5, 123456], [1.204, 12.34, 0.0234, 2e-5, 2], [3, 10, 0.03, 0, 123456]]
  texts = np.array([text for text, _, _ in cells(draw(values))])
  assert texts.reshape(3, 5).T.tolist() == [
    ["8.00", "1.20", "3.00"],
    ["8.0", "12.3", "10.0"],
    ["0.0100", "0.0234", "0.0300"],
    ["1e-5", "2e-5", "0"],
    ["123,456", "2", "123,456"],
  ]


def test_shares_are_percent():
  assert [text for text, _, _ in cells(draw([[0.612, 1]], unit="percent"))] == ["61.2 %", "100.0 %"]


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_colour_is_by_column(better):
  """Columns of different scale: the strengths of one are those of the other."""
  values = np.array([[0.0, 1000.0], [0.25, 2000.0], [1.0, 5000.0]])
  opacity = np.array([o for _, o, _ in cells(draw(values, better=better))]).reshape(3, 2)
  np.testing.assert_array_equal(opacity[:, 0], opacity[:, 1])
  low, middle, high = opacity[:, 0] if better == "higher" else opacity[::-1, 0]
  share = 0.25 if better == "higher" else 0.75
  assert low < middle < high
  assert (opacity[1, 0] - low) / (high - low) == pytest.approx(share, abs=2e-3)
  middle_row = draw(values[:2], better=better)
  assert max(o for _, o, _ in cells(middle_row)) == high  # the range is that of the column, not of the table


def test_equal_numbers_have_the_middle_colour():
  ends = [o for _, o, _ in cells(draw([[0.0], [1.0]]))]
  same = [o for _, o, _ in cells(draw([[3.0, 5.0], [3.0, math.nan]]))]
  assert same == [pytest.approx(np.mean(ends)), pytest.approx(np.mean(ends)), pytest.approx(np.mean(ends)), None]


def test_nan_is_a_dash_without_colour_and_infinity_has_none():
  """Neither counts for the range of the column."""
  values = [[1.0, math.nan], [math.nan, math.nan], [2.0, math.inf], [math.inf, 7.0]]
  found = cells(draw(values))
  assert [text for text, _, _ in found] == ["1.00", "—", "—", "—", "2.00", "not finite", "not finite", "7.00"]
  assert [opacity is None for _, opacity, _ in found] == [False, True, True, True, False, True, True, False]
  assert found[0][1] < found[4][1]
  assert [hint for _, _, hint in found if hint] == ["r0, c0: 1", "r2, c0: 2", "r2, c1: inf", "r3, c0: inf", "r3, c1: 7"]


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_text_can_be_read(better):
  """Contrast of the style sheet's ink on the fullest and the faintest field, light and dark: at least 4.5."""
  opacities = [o for _, o, _ in cells(draw([[0.0], [1.0]], better=better))]

  def luminance(colour):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

  rgb = lambda text: np.array([int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)])
  for page, ink, run in (("#ffffff", "#1c2024", "#2563c9"), ("#14171a", "#e8eaec", "#6ea5ff")):
    for opacity in opacities:
      ground = luminance(opacity * rgb(run) + (1 - opacity) * rgb(page))
      dark, light = sorted((ground, luminance(rgb(ink))))
      assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_colours_are_the_page_s():
  svg = draw([[1.0, 2.0]])
  assert all(r.get("fill") == "currentColor" and r.get("class") == "run0" for r in svg.iter(SVG + "rect"))
  assert all(g.find(SVG + "text").get("style") == "fill:var(--ink)" for g in svg.iter(SVG + "g"))


def test_hostile_labels_are_text():
  bad = '<script>alert("1")</script>'
  text = heatmap(np.ones((1, 1)), rows=[bad], columns=["\"'><b>&"], better="lower", unit="number")
  assert isinstance(text, Markup) and "<script" not in text and "<b>" not in text
  svg = ElementTree.fromstring(text)
  assert labels(svg)[0][0] == bad and labels(svg)[1][0] == "\"'><b>&"
  assert cells(svg)[0][2] == f"{bad}, \"'><b>&: 1"
  assert {e.tag.removeprefix(SVG) for e in svg.iter()} == {"svg", "g", "rect", "text", "title"}


def test_labels_keep_no_control_or_direction_letters():
  svg = draw([[1.0, 2.0]], rows=["a\x00\n\u202eb"], columns=["\ud800", "é"])
  assert labels(svg) == [("a\ufffd\ufffd\ufffdb", None), ("\ufffd", None), ("é", None)]


def test_long_labels_are_cut_and_hinted():
  long = "after a task with quite a long name, and its second half"
  svg = draw([[1.0]], rows=[long], columns=["short"])
  ((shown, hint), short) = labels(svg)
  assert hint == long and shown.endswith("…") and long.startswith(shown[:-1]) and 15 < len(shown) < 40
  assert short == ("short", None)
  wide = labels(draw([[1.0]], rows=["語" * 40]))[0][0]
  assert 0.4 < len(wide) / len(shown) < 0.6


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_label_is_well_formed_and_fits(row, column):
  svg = draw([[1.0]], rows=[row], columns=[column])
  (shown_row, _), (shown_column, _) = labels(svg)
  assert len(shown_row or "") <= 33 and len(shown_column or "") <= 17


@given(st.lists(st.lists(st.floats(), min_size=2, max_size=2), min_size=1, max_size=4))
def test_any_numbers_are_drawn(values):
  found = cells(draw(values, better="lower"))
  assert len(found) == 2 * len(values)
  for (text, opacity, _), value in zip(found, np.ravel(values), strict=True):
    assert (text == "—") == math.isnan(value) and (opacity is None) == (not math.isfinite(value))
    assert opacity is None or 0 <= opacity <= 0.5


@pytest.mark.parametrize("shape", [(2, 3), (3, 3), (2,), (2, 2, 1), (0, 2)])
def test_a_shape_without_its_labels_is_an_error(shape):
  with pytest.raises(UserError, match=r"heatmap: found values of shape .*, expected 2 rows and 2 columns"):
    heatmap(np.zeros(shape), rows=["a", "b"], columns=["x", "y"], better="higher", unit="number")
  with pytest.raises(UserError, match="at least one"):
    heatmap(np.zeros((0, 2)), rows=[], columns=["x", "y"], better="higher", unit="number")
