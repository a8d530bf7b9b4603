import json

import numpy as np
import pytest
from PIL import Image

from ssljax.report import pictures

COLOURS = np.float32([[1, 0, 0], [0, 1, 0], [0, 0, 1]])


def plain(rows, columns, *, size=8):
  """Images [rows, columns, size, size, 3], each of one colour."""
  index = np.arange(rows * columns) % 3
  return np.broadcast_to(COLOURS[index].reshape(rows, columns, 1, 1, 3), (rows, columns, size, size, 3))


def test_cells_are_where_their_index_says():
  sheet = np.asarray(pictures.grid(plain(2, 3, size=100)))
  assert sheet.shape == (2 * 100 + 4, 3 * 100 + 8, 3)
  for r in range(2):
    for c in range(3):
      np.testing.assert_array_equal(sheet[r * 104 + 50, c * 104 + 50], 255 * COLOURS[(3 * r + c) % 3])
  np.testing.assert_array_equal(sheet[102, 50], [255, 255, 255])


@pytest.mark.parametrize(("size", "shown"), [(8, 96), (32, 96), (64, 128), (100, 100), (400, 160)])
def test_small_images_grow_by_whole_factors_and_large_ones_shrink(size, shown):
  assert pictures.grid(plain(1, 1, size=size)).size == (shown, shown)


def test_labels_take_room_and_draw():
  bare = pictures.grid(plain(1, 2, size=96))
  labelled = pictures.grid(plain(1, 2, size=96), rows=["cat"], columns=["a very long label that has to be cut", "b"])
  assert labelled.width > bare.width and labelled.height == bare.height + 20
  assert np.asarray(labelled)[:18].min() < 200  # ink
  assert pictures._fitted("a very long label that has to be cut", 96).endswith("…")


def test_to_uint8():
  np.testing.assert_array_equal(pictures.to_uint8(np.float32([[[-1, 0.5, 2]]])), [[[0, 128, 255]]])
  np.testing.assert_array_equal(pictures.to_uint8(np.float32([[[np.nan]]])), [[[0, 0, 0]]])
  kept = np.uint8([[[1, 2, 3]]])
  np.testing.assert_array_equal(pictures.to_uint8(kept), kept)


def test_neighbours_frame_hits_green_and_misses_red():
  sheet = np.asarray(pictures.neighbours(plain(1, 1, size=96)[0], plain(1, 2, size=96), np.array([[True, False]])))
  left, y = 96 + 12, 20 + 50
  np.testing.assert_array_equal(sheet[y, 1], 255 * COLOURS[0])  # the query has no frame
  np.testing.assert_array_equal(sheet[y, left + 1], pictures._HIT)
  np.testing.assert_array_equal(sheet[y, left + 100 + 1], pictures._MISS)
  np.testing.assert_array_equal(sheet[y, left + 100 + 50], 255 * COLOURS[1])


def test_save_keeps_the_captions_of_others(tmp_path):
  image = pictures.grid(plain(1, 1))
  pictures.save(image, tmp_path / "pictures", "b", caption="two")
  path = pictures.save(image, tmp_path / "pictures", "a", caption="one")
  with Image.open(path) as saved:
    assert saved.size == image.size
  assert json.loads((path.parent / "captions.json").read_text()) == {"b.png": "two", "a.png": "one"}


def test_notes_stand_beside_their_rows():
  bare = np.asarray(pictures.grid(plain(2, 1, size=100)))
  sheet = np.asarray(pictures.grid(plain(2, 1, size=100), notes=["", "a b " * 400]))
  assert sheet.shape == (204, 100 + 8 + 240, 3)
  np.testing.assert_array_equal(sheet[:, :100], bare)
  ink = (sheet[:, 104:] < 200).any(axis=(1, 2))
  assert not ink[:104].any() and ink[104:].any()


def test_long_notes_end_with_an_ellipsis():
  assert pictures._wrapped("one two", most=5) == ["one two"]
  lines = pictures._wrapped("word " * 100, most=3)
  assert len(lines) == 3 and lines[-1].endswith("\N{HORIZONTAL ELLIPSIS}") and not lines[0].endswith("\u2026")
  assert pictures._wrapped("", most=3) == [""]
