import gzip
import json
import os
import pickle
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssljax.data import text_index, unpack
from ssljax.data.documents import open_documents
from ssljax.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  folder = tmp_path / "cache"
  monkeypatch.setenv("SSLJAX_CACHE", str(folder))
  return folder


def opened(where, split="all"):
  return open_documents(f"text:{where}", split=split)


def texts(documents):
  return [documents.read(row) for row in range(len(documents))]


def lines(*found):
  return "".join(json.dumps({"text": text}) + "\n" for text in found).encode()


def compress(data, suffix):
  zstandard = pytest.importorskip("zstandard")
  return {"": lambda x: x, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}[suffix](data)


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_every_form_is_read(suffix, tmp_path):
  (tmp_path / f"a.txt{suffix}").write_bytes(compress("Größe\nzwei\n".encode(), suffix))
  (tmp_path / f"b.jsonl{suffix}").write_bytes(compress(lines("one\n", "zwei é", " \n", "x"), suffix))
  documents = opened(f"{tmp_path}/*{suffix or 't'},{tmp_path}/b.jsonl{suffix}")
  assert texts(documents) == ["Größe\nzwei\n", "one\n", "zwei é", "x"]
  assert (documents.empty, documents.replaced, documents.corrupt) == (1, 0, 0)
  assert documents.name(3) == f"{tmp_path}/b.jsonl{suffix}:4" and documents.group(3) == f"b.jsonl{suffix}:4"
  assert texts(pickle.loads(pickle.dumps(documents))) == texts(documents)


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_page_is_one_document(suffix, tmp_path):
  (tmp_path / "deep" / "er").mkdir(parents=True)
  long = "Wort " * 20_000
  (tmp_path / f"a.html{suffix}").write_bytes(compress(f"\ufeff<h1>Größe</h1><p>{long}".encode(), suffix))
  (tmp_path / "deep" / f"b.htm{suffix}").write_bytes(compress(b"<script>no text</script>", suffix))
  (tmp_path / "deep" / "er" / f"c.html{suffix}").write_bytes(compress(b"<p>c" + b" " * 9000 + b"\0\xffd", suffix))
  documents = opened(f"{tmp_path}/**/*.htm*")
  assert texts(documents) == [f"Größe\n{long.strip()}\n", "c \ufffd\ufffdd\n"]
  assert (documents.empty, documents.replaced, documents.corrupt) == (1, 2, 0)
  assert documents.name(1) == f"{tmp_path}/deep/er/c.html{suffix}:1"
  assert texts(pickle.loads(pickle.dumps(documents))) == texts(documents)


def test_the_text_of_a_page_is_made_again_when_the_page_changes(tmp_path):
  file = tmp_path / "a.html"
  file.write_text("<p>first")
  before = opened(file)
  assert opened(file).fingerprint == before.fingerprint
  file.write_text("<p>other")
  os.utime(file, ns=(1, 1))
  after = opened(file)
  assert texts(after) == ["other\n"] and after.fingerprint != before.fingerprint and texts(before) == ["first\n"]


def test_a_page_that_cannot_be_read_is_named(tmp_path, monkeypatch):
  monkeypatch.setattr(text_index, "MAX_PAGE", 100)
  for name, data, says in [
    ("long.html", b"a" * 101, "long.html: found more than 100 bytes, expected a page"),
    ("wide.html", "<p>a".encode("utf-16"), "wide.html: found a NUL byte, a binary file"),
    ("none.html", b"<p>", "none.html holds no text"),
  ]:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=says):
      opened(tmp_path / name)


def test_several_frames_are_one_text(tmp_path):
  for suffix in (".gz", ".zst"):
    (tmp_path / f"a.txt{suffix}").write_bytes(compress(b"one ", suffix) + compress(b"two", suffix))
  assert texts(opened(f"{tmp_path}/*")) == ["one two"] * 2


def test_the_index_is_made_again_when_a_file_changes(tmp_path, cache, monkeypatch):
  file, passes = tmp_path / "a.txt", []
  plain = text_index.plain
  monkeypatch.setattr(text_index, "plain", lambda source: passes.append(source) or plain(source))
  file.write_text("first")
  before = opened(file)
  assert opened(file).fingerprint == before.fingerprint and len(passes) == 1
  file.write_text("other")
  os.utime(file, ns=(1, 1))
  after = opened(file)
  assert len(passes) == 2 and texts(after) == ["other"] and after.fingerprint != before.fingerprint
  with pytest.raises(UserError, match=r"a\.txt has changed since it was opened"):
    before.read(0)
  assert not [path for path in (cache / "text").iterdir() if path.name.startswith(".")]


@given(
  st.text(st.sampled_from("ab \né漢🙂"), max_size=200),
  st.integers(8, 40),
  st.sampled_from([b"", b"\xef\xbb\xbf"]),
)
def test_pieces_are_short_whole_and_end_with_lines(text, size, mark):
  import io

  data = mark + text.encode()
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(text_index, "PIECE", size)
    index = text_index.plain(io.BytesIO(data))
  pieces = [data[start:stop] for start, stop, _ in index.rows]
  assert all(len(piece) <= size and piece.decode().strip() for piece in pieces) and index.replaced == 0
  assert "".join("".join(piece.decode() for piece in pieces).split()) == "".join(text.split())
  for piece, (_, stop, _) in zip(pieces, index.rows, strict=True):
    assert piece.endswith(b"\n") or stop == len(data) or b"\n" not in piece
  assert len(text.encode()) > size or len(pieces) <= 1


def test_a_long_text_is_cut_at_64_kib(tmp_path):
  (tmp_path / "a.txt").write_bytes(b"x" * (3 * 2**16) + b"\n" + b"line\n" * 30_000)
  documents = opened(tmp_path / "a.txt")
  assert "".join(texts(documents)) == (tmp_path / "a.txt").read_text()
  assert max(map(len, texts(documents))) == 2**16 and documents.group(1) == "a.txt:2"


def test_from_20_files_on_whole_files_are_split(tmp_path):
  for number in range(20):
    (tmp_path / f"{number:02d}").mkdir()
    (tmp_path / f"{number:02d}" / "x.jsonl").write_bytes(lines("a", "b"))
  documents = opened(f"{tmp_path}/**/*.jsonl")
  assert len(documents) == 40 and documents.group(1) == documents.group(0) == "00/x.jsonl"
  train, test = (opened(f"{tmp_path}/*/x.jsonl", split) for split in ("train", "test"))
  assert len(train) + len(test) == 40 and len(test) % 2 == 0
  assert opened(f"{tmp_path}/0*/x.jsonl").group(1) == "00/x.jsonl:2"


def test_bad_bytes_are_replaced_and_counted(tmp_path):
  (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfa\xffb\r\n")
  (tmp_path / "b.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "c\xfe\\ud800d"}\r\n')
  documents = opened(f"{tmp_path}/*.*")
  assert texts(documents) == ["a\ufffdb\r\n", "c\ufffd\ufffdd"] and documents.replaced == 3


@pytest.mark.parametrize(
  ("line", "reason"),
  [
    (b"{", "no JSON"),
    (b"[" * 100_000, "no JSON"),
    (b"\n", "no JSON"),
    (b'{"text": 3}', 'no string "text"'),
    (b'{"texts": "x"}', 'no string "text"'),
    (b'"text"', 'no string "text"'),
    (b'{"text": "' + b"x" * 200_000 + b'"}', "longer than 150,000 bytes"),
  ],
)
def test_bad_lines_are_left_out_up_to_a_share(line, reason, tmp_path, monkeypatch):
  monkeypatch.setattr(text_index, "MAX_LINE", 150_000)
  file = tmp_path / "a.jsonl"
  good = [f"line {number}" for number in range(999)]
  file.write_bytes(lines(*good[:3]) + line.rstrip(b"\n") + b"\n" + lines(*good[3:]))
  documents = opened(file)
  assert texts(documents) == good and documents.corrupt == 1 and documents.name(3).endswith("a.jsonl:5")
  file.write_bytes(lines("a", "b") + line.rstrip(b"\n") + b"\n" + lines("c"))
  with pytest.raises(UserError, match=f"a.jsonl: 1 of 4 lines hold no text, first line 3: {reason}") as error:
    opened(file)
  assert "\n" not in str(error.value)


def test_empty_files_count_where_others_have_text(tmp_path):
  (tmp_path / "empty.txt").touch()
  (tmp_path / "blank.txt").write_text(" \n\n")
  with pytest.raises(UserError, match=r"blank\.txt holds no text, nor do the other 1 files"):
    opened(f"{tmp_path}/*.txt")
  (tmp_path / "text.txt").write_text("x")
  assert opened(f"{tmp_path}/*.txt").empty == 2 and texts(opened(f"{tmp_path}/*.txt")) == ["x"]


def test_files_that_are_none_are_named(tmp_path):
  (tmp_path / "picture.txt").write_bytes(b"\x89PNG\0")
  (tmp_path / "bad.txt.gz").write_bytes(b"no gzip")
  (tmp_path / "short.txt.gz").write_bytes(gzip.compress(b"text" * 1000)[:-9])
  (tmp_path / "bad.txt.zst").write_bytes(b"no zstd at all")
  (tmp_path / "short.txt.zst").write_bytes(compress(b"text" * 1000, ".zst")[:-3])
  for name, says in {
    "picture.txt": "picture.txt: found a NUL byte, a binary file",
    "bad.txt.gz": "bad.txt.gz cannot be decompressed",
    "short.txt.gz": "short.txt.gz cannot be decompressed",
    "bad.txt.zst": "bad.txt.zst cannot be decompressed",
    "short.txt.zst": "short.txt.zst cannot be decompressed .it ends early",
    "*.md": "found nothing, expected a file or a glob",
    "": r"found a folder, expected files: .*/\*\.txt",
  }.items():
    with pytest.raises(UserError, match=says):
      opened(f"{tmp_path}/{name}")
  with pytest.raises(UserError, match="text:, names no file"):
    opened(",")


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_bomb_is_stopped(suffix, tmp_path, cache, monkeypatch):
  monkeypatch.setattr(unpack, "ALWAYS", 10_000)
  (tmp_path / f"a.txt{suffix}").write_bytes(compress(b"a" * 50_000_000, suffix))
  with pytest.raises(UserError, match=r"found more than [\d,]+ bytes inside"):
    opened(f"{tmp_path}/a.txt{suffix}")
  assert not list((cache / "text").iterdir())


def test_a_missing_package_is_named(tmp_path, monkeypatch):
  (tmp_path / "a.txt.zst").write_bytes(b"x")
  monkeypatch.setitem(sys.modules, "zstandard", None)
  with pytest.raises(UserError, match=r'a\.txt\.zst needs zstandard: pip install "ssljax\[text\]"'):
    opened(tmp_path / "a.txt.zst")


def test_a_damaged_index_is_named(tmp_path, cache):
  (tmp_path / "a.txt").write_text("x")
  opened(tmp_path / "a.txt")
  next((cache / "text").glob("*/index.npy")).write_bytes(b"\x80\x04.")
  with pytest.raises(UserError, match=r"is damaged .*expected an index; delete it"):
    opened(tmp_path / "a.txt")
