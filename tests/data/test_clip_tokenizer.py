"""CLIP's ids: golden ones of open_clip 3.3.0, and those of OpenAI's own file on real and on odd texts."""

import gzip
import importlib.util
import pathlib
import pickle
import random
import sys

import numpy as np
import pytest

from ssljax.data import clip_tokenizer as module
from ssljax.data.captions import Captioner, Captions
from ssljax.data.clip_tokenizer import FILE, clean, open_clip_tokenizer
from ssljax.data.source import open_source
from ssljax.errors import UserError

FOLDER = pathlib.Path(importlib.util.find_spec("clip").submodule_search_locations[0])
GOLDEN = {
  "a photo of a cat": [320, 1125, 539, 320, 2368],
  "It's 1,024 DOGS!!": [585, 568, 272, 267, 271, 273, 275, 3255, 748],
  "schÃ¶n &amp; “gut”": [844, 7255, 333, 261, 257, 13486, 257],
  "日本語": [39121, 44353, 34002, 508],
  "👩‍🚀": [26304, 13542],
  "x\u00a0y\t\nz": [343, 344, 345],
  "</w>": [34308, 342, 285],
  "a_b'LL": [320, 318, 321, 1342],
  "": [],
}
ODD = [
  *(
    "'\u017f",
    "\u212a \u017f ß ẞ \u0130 \u0131",
    "\ufb01ne \ufb02our",
    "\uff11\uff12 \uff41\uff42",
    "½ ²",
    "ς Σ",
    "\x85",
  ),
  *("\x00\x01\x1b[31mred\x1b[0m", "a\u0301 é", "\u200b zero", "\ufeffbom", "\ufffd", "ab" * 2000, "x\u2028y", "עברית"),
  *("\x85", "&#x1F600; &eacute", "a&b", "!", "<p>&amp;amp;</p>", "\u2018x\u2019s", "हिन्दी में"),
]


@pytest.fixture(scope="module")
def clip():
  return open_clip_tokenizer()


@pytest.fixture(scope="module")
def reference():
  """OpenAI's tokenizer, out of its package without torch."""
  spec = importlib.util.spec_from_file_location("simple_tokenizer", FOLDER / "simple_tokenizer.py")
  loaded = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(loaded)
  return loaded.SimpleTokenizer()


def test_ids_are_open_clips(clip):
  assert [ids.tolist() for ids in clip.encode(list(GOLDEN))] == list(GOLDEN.values())
  assert (clip.size, clip.bos, clip.eos, clip.pad) == (49_408, 49_406, 49_407, 0)


def test_rows_are_open_clips():
  found = Captioner(Captions(tokenizer="clip", length=7)).encode(["a photo of a cat", "one two three four five six"])
  assert found.ids.tolist() == [
    [49406, 320, 1125, 539, 320, 2368, 49407],
    [49406, 637, 1237, 2097, 2721, 3127, 49407],
  ]
  assert found.cut.tolist() == [False, True]


def test_ids_are_the_originals_on_a_thousand_captions_and_odd_texts(clip, reference):
  pairs = open_source("embedded:emoji_pairs", split="all", image_size=4)
  texts = [f"A Photo of: {text}." for texts in pairs.captions(np.arange(1000)) for text in texts] + ODD
  chance = random.Random(0)
  texts += ["".join(chr(chance.randrange(32, 0x250)) for _ in range(20)) for _ in range(500)]
  for text, ids in zip(texts, clip.encode(texts), strict=True):
    assert ids.tolist() == reference.encode(text), text
    assert clip.decode(ids) == reference.decode(ids.tolist()).strip()


def test_what_looks_special_stays_text(clip):
  ids = clip.encode(["<|endoftext|> x"])[0]
  assert clip.eos not in ids and clip.decode(ids) == "<| endoftext |> x"
  assert clip.decode([clip.bos, *ids, clip.eos, 60_000]) == "<| endoftext |> x"


def test_plain_texts_need_no_mending():
  import ftfy

  chance = random.Random(1)
  texts = ["".join(chr(chance.choice([c for c in range(32, 127) if c != 38])) for _ in range(30)) for _ in range(200)]
  assert all(clean(text) == " ".join(ftfy.fix_text(text).split()).lower() for text in texts)


def test_it_survives_pickling_and_knows_its_pieces(clip):
  again = pickle.loads(pickle.dumps(clip))
  assert again.encode(["a cat"])[0].tolist() == [320, 2368] and again.fingerprint == clip.fingerprint
  assert clip.id("cat</w>") == 2368 and clip.id("no such piece") is None
  assert clip.bytes_of[[2368, 0, clip.bos, clip.eos]].tolist() == [3, 1, 0, 0]


def test_the_file_is_found_or_its_package_is_named(tmp_path, monkeypatch):
  for package in module.PACKAGES:
    monkeypatch.setitem(sys.modules, package, None)
  with pytest.raises(UserError, match=r'clip needs the file bpe.*gz: pip install "ssljax\[clip\]"'):
    open_clip_tokenizer()
  assert open_clip_tokenizer(str(FOLDER / FILE)).size == 49_408
  monkeypatch.setitem(sys.modules, "ftfy", None)
  with pytest.raises(UserError, match=r'needs ftfy: pip install "ssljax\[clip\]"'):
    open_clip_tokenizer(str(FOLDER / FILE))


def test_other_files_are_named(tmp_path, monkeypatch):
  (tmp_path / "plain.txt.gz").write_text("not packed")
  (tmp_path / "torn.txt.gz").write_bytes((FOLDER / FILE).read_bytes()[:1000])
  with gzip.open(tmp_path / "short.txt.gz", "wt") as file:
    file.write("#version\ni n\n")
  for name, says in {"plain": "Not a gzipped file", "torn": "ended before", "short": "found no 48,894 merges"}.items():
    with pytest.raises(UserError, match=says):
      open_clip_tokenizer(f"{tmp_path}/{name}.txt.gz")
  monkeypatch.setattr(module, "MAX_BYTES", 1000)
  with pytest.raises(UserError, match="found no 48,894 merges"):
    open_clip_tokenizer(str(FOLDER / FILE))
