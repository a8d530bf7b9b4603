"""Files of pairs: what is read of them, and every wrong line a file from outside can hold."""

import os
import pickle

import numpy as np
import pytest
from pairs_file import inline, png, write_pairs

from ssljax.data import pair_line, pairs
from ssljax.data.captions import Captioner, Captions
from ssljax.data.pipeline import Stream
from ssljax.data.source import open_all, open_source
from ssljax.errors import UserError


@pytest.fixture
def mixed(tmp_path):
  """Thirty pairs, pictures in files and in lines, with one caption and with several, in two classes."""
  (tmp_path / "sub").mkdir()
  lines = []
  for n in range(30):
    (tmp_path / "sub" / f"{n}.png").write_bytes(png(n))
    here = {"image": f"sub/{n}.png", "captions": [f"number {n}", " ", f"nr {n}"], "url": "left alone"}
    lines.append((here if n % 2 else inline(n)) | {"label": ("even", "odd")[n % 2]})
  return write_pairs(tmp_path, lines)


def test_pictures_labels_and_captions_are_read(mixed):
  source = open_all(mixed, image_size=4)
  rows = np.array([3, 4, 29])
  arrays, errors = source.read(rows)
  assert not errors and arrays["image"][:, 0, 0, 0].tolist() == [3, 4, 29] and arrays["label"].tolist() == [1, 0, 1]
  assert source.captions(rows) == [("number 3", "nr 3"), ("number 4",), ("number 29", "nr 29")]
  assert (len(source), source.class_names, source.has_captions) == (30, ("even", "odd"), True)
  assert source.name(3).endswith("pairs.jsonl:4") and source.group(3) == "sub/3.png"
  np.testing.assert_allclose(arrays["aspect"], 8 / 6)


def test_a_split_and_a_pickled_source_keep_the_captions(mixed):
  train = open_source(mixed, split="train[:50%]", image_size=4)
  again = pickle.loads(pickle.dumps(train))
  rows = np.arange(len(train))
  assert again.captions(rows) == train.captions(rows)
  for texts, value in zip(train.captions(rows), train.read(rows).arrays["image"][:, 0, 0, 0], strict=True):
    assert texts[0] == f"number {value}"


def test_a_picture_or_a_group_never_parts(tmp_path):
  same = inline(1) | {"caption": "x"}
  lines = [same, same | {"caption": "y"}, {"image": "a.png", "group": "g"}, inline(2, group="g"), {"image": "a.png"}]
  source = open_all(write_pairs(tmp_path, lines), image_size=4)
  groups = [source.group(row) for row in range(5)]
  assert groups[0] == groups[1] and groups[2:] == ["g", "g", "a.png"] and groups[0] not in groups[2:]


WRONG = {
  "nonsense": "no JSON",
  "[1]": "found list '[1]', expected an object",
  '{"caption": "x"}': "found neither image and bytes",
  '{"image": "a", "bytes": "eA=="}': "found both image and bytes",
  '{"image": "/etc/passwd"}': "'/etc/passwd' leads out of the file's folder",
  '{"image": "a\\u0000b"}': "is no path",
  '{"image": "a/../../x.png"}': "leads out of the file's folder",
  '{"image": "link.png"}': "'link.png' leads out of the file's folder",
  '{"image": "pipe"}': "'pipe' is no file",
  '{"image": "."}': "'.' is no file",
  '{"image": "gone.png"}': "'gone.png': No such file",
  '{"image": 3}': "image: found int '3', expected a text",
  '{"bytes": "%%%"}': "bytes: no base64",
  '{"bytes": "eA=="}': "not a picture of a known format",
  '{"image": "a.png", "caption": 3}': "caption: found int '3', expected a text",
  '{"image": "a.png", "captions": "x"}': "captions: found str 'x', expected a list",
  '{"image": "a.png", "captions": ["x", {}]}': "caption: found dict",
  '{"image": "a.png", "label": ["x"]}': "label: found list",
  "[" * 100_000: "no JSON",
  '{"image": "' + "9" * 5000 + '"}': "File name too long",
  '{"n": ' + "9" * 5000 + "}": "no JSON",
}


def test_wrong_lines_cost_only_themselves(tmp_path):
  (tmp_path.parent / "outside.png").write_bytes(png(1))
  (tmp_path / "link.png").symlink_to(tmp_path.parent / "outside.png")
  os.mkfifo(tmp_path / "pipe")
  source = open_all(write_pairs(tmp_path, [inline(7), "", *WRONG, inline(9)]), image_size=4)
  arrays, errors = source.read(np.arange(len(source)))
  assert arrays["image"][[0, -1], 0, 0, 0].tolist() == [7, 9] and len(source) == len(WRONG) + 2
  assert source.name(1).endswith("pairs.jsonl:3")  # line 2 is empty
  for (line, says), reason in zip(WRONG.items(), errors.values(), strict=True):
    assert says in reason, (line[:60], reason)
    assert "\n" not in reason and len(reason) < 300


def test_lines_and_pictures_have_limits(tmp_path, monkeypatch):
  source = lambda: open_all(write_pairs(tmp_path, [inline(1), inline(2, caption="x" * 5000), inline(3)]), image_size=4)
  monkeypatch.setattr(pairs, "MAX_LINE", 3000)
  found = source()
  assert found.read(np.arange(3)).errors == {1: f"more than {pair_line.MAX_LINE:,} bytes"}
  assert found.read(np.array([2])).arrays["image"].max() == 3 and found.name(2).endswith(":3")
  monkeypatch.undo()
  monkeypatch.setattr(pair_line, "_MAX_BASE64", 10)
  with pytest.raises(UserError, match=r"none of 3 lines is a pair, line 1: bytes: \d+ characters, limit 10"):
    source()
  monkeypatch.undo()
  monkeypatch.setattr(pair_line, "MAX_CAPTIONS", 2)
  with pytest.raises(UserError, match=r"captions: found list .*, expected a list of at most 2 texts"):
    open_all(write_pairs(tmp_path, [inline(1, captions=["a", "b", "c"])]), image_size=4)


def test_half_a_character_can_be_written(tmp_path):
  source = open_all(write_pairs(tmp_path, [inline(1, caption="a\ud800b", group="\udfff")]), image_size=4)
  assert source.captions(np.arange(1)) == [("a?b",)] and source.group(0) == "?"


def test_files_that_are_none_are_named(tmp_path):
  for spec, says in {
    f"pairs:{tmp_path}": "found a folder, expected a file of JSON lines",
    f"pairs:{tmp_path}/gone.jsonl": "gone.jsonl: No such file",
    write_pairs(tmp_path / "a", []): "holds no records",
    write_pairs(tmp_path / "b", ["x", "y"]): "none of 2 lines is a pair, line 1: no JSON",
    write_pairs(tmp_path / "c", [inline(1, label="a"), "torn", inline(2)]): "line 3 has no label, expected one",
  }.items():
    with pytest.raises(UserError, match=says):
      open_all(spec, image_size=4)


def test_a_file_that_changes_is_refused(tmp_path):
  source = open_all(write_pairs(tmp_path, [inline(1)]), image_size=4)
  write_pairs(tmp_path, [inline(1), inline(2)])
  with pytest.raises(UserError, match="has changed since it was opened"):
    source.read(np.arange(1))


def stream(spec, **options):
  captioner = Captioner(Captions(tokenizer="bytes", length=16, **options.pop("captions", {})))
  return Stream(open_all(spec, image_size=4), captioner=captioner, **{"seed": 0, "batch_size": 12} | options)


def texts(batch, captioner):
  return [captioner.decode(row) for row in batch.arrays["text"]]


def test_a_batch_holds_a_caption_of_each_of_its_pictures(mixed):
  found = stream(mixed)
  batch = found.batch(1)
  assert batch.arrays["text"].shape == (12, 16) and batch.arrays["text"].dtype == np.int32
  values = batch.arrays["image"][:, 0, 0, 0]
  for text, value in zip(texts(batch, found.captioner), values, strict=True):
    assert text in (f"number {value}", f"nr {value}")


def test_the_caption_is_picked_by_seed_and_position_alone(mixed):
  def read(steps, **options):
    return np.concatenate([stream(mixed, **options).batch(step).arrays["text"] for step in steps])

  whole = read(range(10))
  hosts = [stream(mixed, host=host, num_hosts=3) for host in range(3)]
  parts = [np.concatenate([host.batch(step).arrays["text"] for host in hosts]) for step in range(10)]
  np.testing.assert_array_equal(np.concatenate(parts), whole)
  np.testing.assert_array_equal(read([7]), whole[7 * 12 : 8 * 12])
  assert (read(range(10), seed=1) != whole).any()
  captioner = stream(mixed).captioner
  odd = [text for text in map(captioner.decode, whole) if int(text.split()[1]) % 2]
  share = np.mean([text.startswith("nr") for text in odd])
  assert len(odd) == 60 and 0.25 < share < 0.75, share
  first = [captioner.decode(row) for row in read(range(10), captions={"pick": "first"})]
  assert all(text.startswith("number") for text in first)


def test_pairs_without_caption_or_picture_give_their_place_away(tmp_path):
  lines = [inline(n) for n in range(1, 13)]
  lines[3] |= {"caption": "  "}
  lines[4] |= {"caption": None}
  lines[8] |= {"bytes": "eA=="}
  spec = write_pairs(tmp_path, lines)
  found = stream(spec, shuffle="none")
  batch = found.batch(0)
  assert batch.skipped == tuple(
    f"{tmp_path}/pairs.jsonl:{line}: {reason}"
    for line, reason in ((4, "no caption"), (5, "no caption"), (9, "not a picture of a known format"))
  )
  assert batch.arrays["image"][:, 0, 0, 0].tolist() == [1, 2, 3, 6, 6, 6, 7, 8, 10, 10, 11, 12]
  assert texts(batch, found.captioner)[2:6] == ["number 3", "number 6", "number 6", "number 6"]
  pictures = Stream(found.source, seed=0, batch_size=12, shuffle="none").batch(0)  # who asks for no text needs none
  assert len(pictures.skipped) == 1 and "text" not in pictures.arrays


def test_a_file_without_any_caption_stops(tmp_path):
  spec = write_pairs(tmp_path, [inline(n, caption="") for n in range(3)])
  with pytest.raises(UserError, match=r"100 records in a row cannot be used, the first is .*: no caption"):
    stream(spec).batch(0)
