"""Shards of webdataset: every form of .tar, what img2dataset writes, and what a hostile or torn shard may hold."""

import gzip
import json
import tarfile

import numpy as np
import pytest
from pairs_file import png, write_tar

from ssljax.data import tar_samples, webdataset
from ssljax.data.prepare import prepare
from ssljax.data.source import open_all, open_source
from ssljax.errors import UserError


def sample(number, *, key=None, **members):
  """The members of a sample: a picture, its caption and, by keyword, more."""
  key = key or f"{number:05d}"
  members = {"png": png(number), "txt": f"number {number}\n"} | members
  return [(f"{key}.{name}", data.encode() if isinstance(data, str) else data) for name, data in members.items() if data]


def members(count, **more):
  return [member for n in range(count) for member in sample(n, **{key: make(n) for key, make in more.items()})]


def opened(*shards):
  return open_all(f"webdataset:{shards[0].parent}/*.tar", image_size=4)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_form_of_tar_is_read(tmp_path, form):
  folder = "long/" * 10 if form == tarfile.USTAR_FORMAT else "long/" * 60
  parts = [member for n in range(9) for member in sample(n, key=f"./{folder}{n}.5", cls=f"{n % 3}\n")]
  source = opened(write_tar(tmp_path / "0.tar", parts, form=form))
  assert len(source) == 9 and source.has_captions and source.num_classes == 3
  arrays, errors = source.read(np.arange(9)[::-1])
  assert not errors and arrays["image"][:, 0, 0, 0].tolist() == list(range(9))[::-1]
  assert arrays["label"].tolist() == [2, 1, 0] * 3
  assert source.captions(np.array([4])) == [("number 4",)]
  assert source.name(4) == f"{tmp_path}/0.tar/./{folder}4" and source.group(4).startswith("0.tar/")


def test_img2dataset_is_prepared_once(tmp_path):
  for shard in range(3):
    parts = members(20, json=lambda n: json.dumps({"caption": "the same", "status": "success", "width": 8}))
    write_tar(tmp_path / f"{shard:05d}.tar", parts)
  *_, last = prepare(f"webdataset:{tmp_path}/*.tar", tmp_path / "out", shards=2)
  assert (last.total, last.skipped) == (60, ())
  sets = [open_source(f"arrayrecord:{tmp_path}/out", split=split, image_size=4) for split in ("train", "test")]
  assert sum(map(len, sets)) == 60 and sets[0].has_captions
  values = sets[0].read(np.arange(len(sets[0]))).arrays["image"][:, 0, 0, 0]
  assert sets[0].captions(np.arange(len(sets[0]))) == [(f"number {value}",) for value in values]


def test_the_caption_may_be_in_the_json(tmp_path):
  texts = [{"caption": " said "}, {"captions": ["a", "b"]}, {}, [], None, {"caption": 3}]
  parts = [member for n, text in enumerate(texts) for member in sample(n, txt=None, json=json.dumps(text))]
  source = opened(write_tar(tmp_path / "0.tar", parts))
  assert source.captions(np.arange(6)) == [(" said ",), ("a", "b"), (), (), (), ()]


def test_what_is_no_file_is_passed_over(tmp_path):
  (tmp_path / "secret.png").write_bytes(png(200))
  links = []
  for number, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)):
    info = tarfile.TarInfo(f"{number:05d}x.png")
    info.type, info.linkname = kind, f"{tmp_path}/secret.png"
    links.append((info, b""))
  source = opened(write_tar(tmp_path / "0.tar", [*members(2), *links, ("notes.md", b"x"), (".png", b"y")]))
  assert len(source) == 2 and source.read(np.arange(2)).arrays["image"].max() == 1


def test_samples_lack_what_they_lack(tmp_path):
  parts = [*sample(0, png=None), *sample(1, txt=None), *sample(2, txt=b"\xff\xfe ok"), *sample(3, png=b"torn")]
  source = opened(write_tar(tmp_path / "0.tar", parts))
  errors = source.read(np.arange(4)).errors
  assert errors == {
    0: "found nothing, expected a .jpg of at most 67,108,864 bytes",
    3: "not a picture of a known format",
  }
  assert source.captions(np.arange(4)) == [("number 0",), (), ("\ufffd\ufffd ok",), ("number 3",)]
  assert source.num_classes is None


@pytest.mark.parametrize("wrong", ["cat", "-1", "1000000", "9" * 5000, None])
def test_one_sample_without_a_class_costs_only_itself(tmp_path, wrong):
  parts = [member for n in range(3) for member in sample(n, cls=wrong if n == 1 else str(n))]
  source = opened(write_tar(tmp_path / "0.tar", parts))
  errors = source.read(np.arange(3)).errors
  assert source.num_classes == 3 and list(errors) == [1] and "cls" in errors[1] and len(errors[1]) < 200


def test_a_torn_shard_gives_what_is_left(tmp_path):
  shard = write_tar(tmp_path / "0.tar", members(9))
  whole = shard.read_bytes()
  shard.write_bytes(whole[: 4 * 2048 + 550])  # a sample is 4 blocks of 512 bytes
  source = opened(shard)
  errors = source.read(np.arange(len(source))).errors
  assert errors == {4: "the shard is cut short", 5: "damaged (unexpected end of data), what follows is lost"}
  assert source.name(5).endswith("0.tar/byte 9216")
  shard.write_bytes(whole[: 4 * 2048] + b"\x55" * 512 + whole[4 * 2048 + 512 :])
  source = opened(shard)
  assert len(source) == 5 and source.read(np.arange(5)).errors == {4: "damaged, what follows is lost"}
  shard.write_bytes(whole[: 4 * 2048])  # no end at all is one too
  assert not opened(shard).damages and len(opened(shard)) == 4


def test_sizes_have_limits(tmp_path, monkeypatch):
  shard = write_tar(tmp_path / "0.tar", members(2))
  monkeypatch.setattr(webdataset, "MAX_BYTES", 10)
  monkeypatch.setattr(webdataset, "MAX_TEXT", 3)
  source = opened(shard)
  assert "bytes, expected a .jpg of at most 10 bytes" in source.read(np.arange(1)).errors[0]
  assert source.captions(np.arange(1)) == [()]


def test_a_header_that_claims_much_is_not_held(tmp_path, monkeypatch):
  monkeypatch.setattr(tar_samples, "_MAX_HEADER", 1000)
  shard = write_tar(tmp_path / "0.tar", [*members(1), *sample(1, key="n" * 3000)], form=tarfile.GNU_FORMAT)
  source = opened(shard)
  assert len(source) == 2 and "a header of 3,072 bytes" in source.damages[1]


def test_files_that_are_no_shards_are_named(tmp_path):
  whole = write_tar(tmp_path / "0.tar", members(2)).read_bytes()
  for name, data, says in (
    ("packed", gzip.compress(whole), "packed.tar: no .tar .*, expected one that is not compressed"),
    ("empty", b"", "empty.tar: no .tar"),
    ("bare", bytes(10240), "holds no records"),
  ):
    (tmp_path / f"{name}.tar").write_bytes(data)
    with pytest.raises(UserError, match=says):
      open_all(f"webdataset:{tmp_path}/{name}.tar", image_size=4)
  with pytest.raises(UserError, match="no file matches, expected shards"):
    open_all(f"webdataset:{tmp_path}/*.tgz", image_size=4)
