import json

import numpy as np
import pytest

from ssljax.errors import UserError
from ssljax.report import rundir


@pytest.fixture
def run(tmp_path):
  (tmp_path / "config.json").write_text("{}")
  (tmp_path / "metrics.jsonl").write_text('{"step": 2, "train/loss": null}\n{"step": 1, "train/loss": 0.5, "b": 1}\n')
  return tmp_path


def test_rows_are_in_the_order_of_steps(run):
  content = rundir.read(run)
  curve = content.series("train/loss", 3)
  np.testing.assert_array_equal(curve.steps, [1, 2])
  assert curve.values[0] == 0.5 and np.isnan(curve.values[1]) and curve.colour == 3
  assert content.last_step == 2 and content.broken == 1
  assert content.series("missing", 0) is None


def test_what_is_missing_is_empty(run):
  content = rundir.read(run)
  assert (content.final, content.summary, content.pictures) == ({}, {}, [])


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl"])
def test_no_work_directory(run, name):
  (run / name).unlink()
  with pytest.raises(UserError, match=f"found no {name}"):
    rundir.read(run)


@pytest.mark.parametrize("text", ["{", "[1]", "[" * 100_000])
def test_broken_json_is_one_line(run, text):
  (run / "config.json").write_text(text)
  with pytest.raises(UserError, match=r"config.json: found") as error:
    rundir.read(run)
  assert "\n" not in str(error.value)


def test_sizes_are_limited(run, monkeypatch):
  monkeypatch.setattr(rundir, "MAX_METRICS", 10)
  with pytest.raises(UserError, match=r"metrics.jsonl: found \d+ bytes, expected at most 10"):
    rundir.read(run)


def test_pictures_by_name_with_captions_and_limits(run, monkeypatch):
  folder = run / "pictures"
  folder.mkdir()
  png = b"\x89PNG\r\n\x1a\n"
  for name, content in {"b": png, "a": png + b"x", "c": b"/etc/passwd", "d": png + bytes(100), "e": png}.items():
    (folder / f"{name}.png").write_bytes(content)
  (folder / "captions.json").write_text(json.dumps({"a.png": "first"}))
  monkeypatch.setattr(rundir, "MAX_PICTURE", 50)
  monkeypatch.setattr(rundir, "MAX_PICTURES", 4)
  captions = [p.caption for p in rundir.read(run).pictures]
  assert captions[:2] == ["first", "b"]
  assert "c.png is no PNG" in captions[2] and "108 bytes" in captions[3] and "1 more" in captions[4]
  urls = [p.url for p in rundir.read(run).pictures]
  assert urls[0] == "data:image/png;base64,iVBORw0KGgp4" and urls[2:] == ["", "", ""]


def test_scores_of_text_are_beside_the_ngram(run):
  (run / "eval").mkdir()
  scores = {
    "R/bits_per_byte": 2.5,
    "X/bits_per_byte": 2.3,
    "untrained/R/bits_per_byte": 5.0,
    "ngram/bits_per_byte": 2.7,
  }
  (run / "eval" / "final.json").write_text(json.dumps(scores | {"train/data_wait": 0.1}))
  assert rundir.read(run).final == {
    "trained/R/bits_per_byte": 2.5,
    "trained/X/bits_per_byte": 2.3,
    "untrained/R/bits_per_byte": 5.0,
    "ngram/R/bits_per_byte": 2.7,
    "ngram/X/bits_per_byte": 2.7,
    "train/data_wait": 0.1,
  }
