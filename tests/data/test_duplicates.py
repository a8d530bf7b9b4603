"""Pictures in two sets are found by what they show, not by how they are stored."""

import numpy as np
import pytest

from ssljax.data.duplicates import duplicates
from ssljax.data.source import open_all, open_source


def test_equal_pictures_are_found_whatever_their_files(tmp_path, encoded):
  pictures = np.random.default_rng(0).integers(0, 255, (600, 8, 8, 3), dtype=np.uint8)
  np.savez(tmp_path / "train.npz", image=pictures[:400])
  test = tmp_path / "test"
  test.mkdir()
  for name, number in (("a", 399), ("b", 400), ("c", 7), ("d", 7)):
    (test / f"{name}.png").write_bytes(encoded(pictures[number]))
  (test / "e.png").write_text("torn")
  almost = pictures[3].copy()
  almost[0, 0, 0] ^= 1
  (test / "f.bmp").write_bytes(encoded(almost, "BMP"))
  (test / "g.bmp").write_bytes(encoded(pictures[3], "BMP"))
  sets = [open_all(spec, image_size=8) for spec in (f"npz:{tmp_path}/train.npz", f"folder:{test}")]
  found = duplicates(*sets)
  assert [(one.test, one.train) for one in found] == [(0, 399), (2, 7), (3, 7), (6, 3)]
  assert found[0].test_name.endswith("a.png") and found[0].train_name.endswith("train.npz[399]")


def test_a_flag_of_the_emoji_is_another_one():
  train, test = (open_source("embedded:emoji_pairs", split=split, image_size=32) for split in ("train", "test"))
  (found,) = duplicates(train, test)
  told = [source.captions(np.array([row]))[0][0] for source, row in ((test, found.test), (train, found.train))]
  assert told == ["british indian ocean territory flag", "diego garcia flag"]


def test_sizes_must_agree():
  with pytest.raises(AssertionError):
    duplicates(*(open_all("embedded:emoji", image_size=size) for size in (8, 16)))
