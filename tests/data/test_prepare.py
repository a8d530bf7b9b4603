import json

import numpy as np
import pytest
from pairs_file import inline, write_pairs

from ssljax.data import prepare as module
from ssljax.data.arrayrecord import Record, pack, unpack
from ssljax.data.decode import CorruptRecord
from ssljax.data.prepare import prepare
from ssljax.data.source import open_all, open_source
from ssljax.errors import UserError


@pytest.fixture
def prepared(folder, tmp_path):
  """The folder as shards."""
  *_, last = prepare(f"folder:{folder}", tmp_path / "shards", shards=3, licence="CC0")
  assert (last.done, last.total, last.skipped) == (24, 24, ())
  return tmp_path / "shards"


def read_manifest(prepared):
  return json.loads((prepared / "manifest.json").read_text())


def test_shards_equal_the_folder(folder, prepared):
  for split in ("train", "test"):
    shards, files = (
      open_source(spec, split=split, image_size=8) for spec in (f"arrayrecord:{prepared}", f"folder:{folder}")
    )
    assert len(shards) == len(files) and (shards.class_names, shards.num_classes) == (("cat", "dog"), 2)
    rows = np.arange(len(files))[::-1]
    for (key, value), other in zip(files.read(rows).arrays.items(), shards.read(rows).arrays.values(), strict=True):
      np.testing.assert_array_equal(value, other, err_msg=key)
    assert [shards.name(row) for row in rows] == [files.group(row) for row in rows]
  assert shards.licence == "CC0"


def test_the_manifest_tells_what_was_written(prepared):
  manifest = read_manifest(prepared)
  files = [shard for shards in manifest["splits"].values() for shard in shards]
  assert manifest["records"] == sum(shard["records"] for shard in files) == 24
  assert manifest["image_size"] == {"min": [16, 12], "max": [16, 12]} and manifest["class_names"] == ["cat", "dog"]
  for shard in files:
    data = (prepared / shard["file"]).read_bytes()
    assert len(data) == shard["bytes"] and module.hashlib.sha256(data).hexdigest() == shard["sha256"]
  assert sorted(path.name for path in prepared.iterdir()) == sorted(
    [*(shard["file"] for shard in files), "manifest.json"]
  )


def test_encoded_pictures_keep_their_bytes(folder, prepared):
  source = open_all(f"arrayrecord:{prepared}", image_size=8)
  items, _ = source.fetch(np.arange(24))
  assert sorted(items) == sorted(path.read_bytes() for path in folder.rglob("*.jpg"))


def test_corrupt_pictures_are_left_out_and_named(folder, tmp_path):
  (folder / "cat/deeper/06.jpg").write_text("torn")
  *_, last = prepare(f"folder:{folder}", tmp_path / "out", shards=1)
  assert last.skipped == (f"{folder}/cat/deeper/06.jpg: not a picture of a known format",)
  manifest = read_manifest(tmp_path / "out")
  assert manifest["records"] == 23 and manifest["skipped"] == list(last.skipped)
  assert len(open_all(f"arrayrecord:{tmp_path}/out", image_size=8)) == 23


def test_arrays_are_kept_without_loss(tmp_path):
  images = np.random.default_rng(0).integers(0, 255, (30, 8, 8, 3), dtype=np.uint8)
  np.savez(tmp_path / "set.npz", image=images)
  list(prepare(f"npz:{tmp_path}/set.npz", tmp_path / "out"))
  shards = open_all(f"arrayrecord:{tmp_path}/out", image_size=8)
  assert shards.keys == ("image", "aspect")
  rows = [int(shards.name(row)) for row in range(30)]
  assert sorted(rows) == list(range(30))
  np.testing.assert_array_equal(shards.read(np.arange(30)).arrays["image"], images[rows])


def test_own_splits_are_kept(folder, tmp_path):
  (tmp_path / "split").mkdir()
  (folder / "cat").rename(tmp_path / "split/train")
  (folder / "dog").rename(tmp_path / "split/val")
  list(prepare(f"folder:{tmp_path}/split", tmp_path / "out", shards=2))
  assert {
    name: sum(shard["records"] for shard in shards)
    for name, shards in read_manifest(tmp_path / "out")["splits"].items()
  } == {"train": 12, "val": 12}
  assert len(open_source(f"arrayrecord:{tmp_path}/out", split="test", image_size=4)) == 12


def test_a_glob_takes_some_shards(prepared):
  source = open_all(f"arrayrecord:{prepared}/train-0000[01]*", image_size=4)
  assert len(source) == sum(shard["records"] for shard in read_manifest(prepared)["splits"]["train"][:2])
  with pytest.raises(UserError, match=r"'test' of arrayrecord:.* holds none"):
    open_source(f"arrayrecord:{prepared}/train-*", split="test", image_size=4)


def test_nothing_is_left_when_it_is_stopped(folder, tmp_path):
  work = prepare(f"folder:{folder}", tmp_path / "out")
  next(work)
  work.close()
  assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


def test_places_that_cannot_be_written_are_named(folder, tmp_path):
  (tmp_path / "taken").mkdir()
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="taken exists; name a new folder"):
    prepare(f"folder:{folder}", tmp_path / "taken")
  with pytest.raises(UserError, match=r"cannot write in .*file: (File exists|Not a directory)"):
    list(prepare(f"folder:{folder}", tmp_path / "file" / "out"))


def test_no_right_to_write_is_named(folder, tmp_path, monkeypatch):
  def refuse(**_):
    raise PermissionError(13, "Permission denied")

  monkeypatch.setattr(module.tempfile, "mkdtemp", refuse)
  with pytest.raises(UserError, match=r"cannot write in .*: Permission denied"):
    list(prepare(f"folder:{folder}", tmp_path / "out"))


def test_a_full_disk_leaves_nothing(folder, tmp_path, monkeypatch):
  def refuse(*_):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(module.os, "rename", refuse)
  with pytest.raises(UserError, match=r"out failed: No space left on device"):
    list(prepare(f"folder:{folder}", tmp_path / "out"))
  assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


def test_a_set_with_nothing_good_is_named(tmp_path):
  (tmp_path / "bad").mkdir()
  (tmp_path / "bad/x.png").write_text("torn")
  with pytest.raises(UserError, match="none of the 1 records can be used"):
    list(prepare(f"folder:{tmp_path}/bad", tmp_path / "out"))
  assert not (tmp_path / "out").exists()


def test_damaged_sets_are_named(prepared, tmp_path):
  manifest = read_manifest(prepared)
  shard = manifest["splits"]["train"][0]

  def says(match):
    with pytest.raises(UserError, match=match):
      open_all(f"arrayrecord:{prepared}", image_size=4)

  def write(**changes):
    (prepared / "manifest.json").write_text(json.dumps(manifest | changes))

  def broken(**changes):
    write(splits={"train": [shard | changes]})

  broken(sha256="")
  says("broken shard entry")
  broken(records="many")
  says("broken shard entry")
  broken(file="../elsewhere")
  says("broken shard entry")
  broken(bytes=5)
  says(r"found \d+ bytes, the manifest tells 5 bytes")
  broken(file="gone.arrayrecord")
  says("found no file")
  write(format="other")
  says("format is 'other'")
  (prepared / "manifest.json").write_text("[]")
  says("format is 'list'")
  (prepared / "manifest.json").write_text("{")
  says("cannot be read")
  (prepared / "manifest.json").unlink()
  says("is missing, expected beside the shards")
  with pytest.raises(UserError, match="no file matches"):
    open_all(f"arrayrecord:{tmp_path}/none-*", image_size=4)


def test_a_count_that_is_not_the_shards_is_named(prepared):
  manifest = read_manifest(prepared)
  manifest["splits"]["train"][0]["records"] += 1
  (prepared / "manifest.json").write_text(json.dumps(manifest))
  with pytest.raises(UserError, match=r"found 24 records, the manifest tells 25"):
    open_all(f"arrayrecord:{prepared}", image_size=4).read(np.arange(2))


def test_a_flipped_byte_costs_one_record(prepared):
  shard = prepared / read_manifest(prepared)["splits"]["train"][0]["file"]
  data = bytearray(shard.read_bytes())
  source = open_all(f"arrayrecord:{prepared}", image_size=8)
  picture = source.fetch(np.array([2]))[0][0]
  data[data.index(picture) + len(picture) // 2] ^= 0xFF
  shard.write_bytes(data)
  again = open_all(f"arrayrecord:{prepared}", image_size=8)
  assert list(again.read(np.arange(len(again))).errors) == [2]


def test_pairs_keep_their_captions(tmp_path):
  lines = [inline(n, captions=[f"number {n}", f"ü {n}"][: 1 + n % 2], label="ab"[n % 2]) for n in range(40)]
  lines[7] |= {"captions": []}
  spec = write_pairs(tmp_path, ["torn", *lines])
  *_, last = prepare(spec, tmp_path / "out", shards=2)
  assert last.skipped and sorted(line.partition(": ")[2] for line in last.skipped) == [
    "no JSON (Expecting value: line 1 column 1 (char 0))",
    "no caption",
  ]
  manifest = read_manifest(tmp_path / "out")
  assert (manifest["format"], manifest["records"], manifest["captions"]) == ("ssljax-arrayrecord-2", 39, 58)
  told = {n: tuple(line["captions"]) for n, line in enumerate(lines)}
  sizes = []
  for split in ("train", "test"):
    shards = open_source(f"arrayrecord:{tmp_path}/out", split=split, image_size=8)
    rows = np.arange(len(shards))[::-1]
    arrays = shards.read(rows).arrays
    values = arrays["image"][:, 0, 0, 0].tolist()
    assert shards.has_captions and shards.class_names == ("a", "b")
    assert shards.captions(rows) == [told[value] for value in values]
    assert arrays["label"].tolist() == [value % 2 for value in values]
    sizes.append(len(shards))
  assert sum(sizes) == 39 and min(sizes) > 0


def test_damaged_captions_are_corrupt():
  good = pack(Record(b"picture", 3, "a", ("x", "y")))
  for data in (good[:12], good.replace(b'["x"', b'{"x"'), good.replace(b'"x"', b"123"), good[:11] + b"\xff" * 4):
    with pytest.raises(CorruptRecord):
      unpack(data)


@pytest.mark.parametrize(
  "record",
  [
    Record(b"picture", 3, "a/ü.jpg"),
    Record(b"", -1, ""),
    Record(b"x", 2**31 - 1, "n" * 300),
    Record(b"p", 0, "", ("é", "b")),
  ],
)
def test_records_survive_packing(record):
  assert unpack(pack(record)) == record


@pytest.mark.parametrize("data", [b"", b"SSJ1", b"elsewhere........"])
def test_foreign_records_are_corrupt(data):
  with pytest.raises(CorruptRecord, match="not a record"):
    unpack(data)
