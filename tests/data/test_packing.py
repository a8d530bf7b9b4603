"""Packing: rows never overflow, nothing is lost, little is padding."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssljax.data.packing import pack


@settings(deadline=None)
@given(
  sizes=st.lists(st.tuples(st.integers(1, 40), st.integers(0, 25)), max_size=80),
  sides=st.integers(1, 2),
  window=st.integers(1, 30),
)
def test_rows_hold_what_is_put_in_them(sizes, sides, window):
  sizes = np.array(sizes, np.int64).reshape(-1, 2)[:, :sides]
  rows = pack(sizes, capacity=(40, 25)[:sides], window=window)
  assert rows.shape == (len(sizes),)
  assert sorted(set(rows.tolist())) == list(range(len(set(rows.tolist()))))
  for side, capacity in zip(range(sides), (40, 25), strict=False):
    assert (np.bincount(rows, weights=sizes[:, side]) <= capacity).all()
  of_window = np.arange(len(sizes)) // window  # rows are shared inside a window only
  assert len({(row, w) for row, w in zip(rows, of_window, strict=True)}) == len(set(rows.tolist()))


def test_best_fit_by_hand():
  """Largest first: 7, 6, 4, 3: 3 goes beside 7 (full), 4 beside 6 (full)."""
  assert pack(np.array([[4], [7], [3], [6]]), capacity=(10,)).tolist() == [1, 0, 0, 1]


def test_long_tailed_documents_fill_rows():
  sizes = np.exp(np.random.default_rng(0).normal(4.6, 0.8, 20_000)).astype(int).clip(1, 512)
  rows = pack(sizes[:, None], capacity=(512,))
  assert sizes.sum() / (rows.max() + 1) / 512 > 0.99


def test_two_sides_complement_each_other():
  """Half the examples are all inputs, half are all targets: one of each to a row."""
  sizes = np.tile([[90, 10], [10, 90]], (50, 1))
  assert pack(sizes, capacity=(100, 100)).max() + 1 == 50


@pytest.mark.parametrize("sides", [1, 2])
def test_no_examples(sides):
  assert pack(np.zeros((0, sides), np.int64), capacity=(5,) * sides).shape == (0,)
