"""Evaluators of text: the n-gram against counting by hand, bits per byte against the plan, what infill prints."""

import dataclasses
import math
import types

import numpy as np
import pytest

from ssljax.data.corpus import Corpus, Text
from ssljax.data.mixture import named
from ssljax.data.tokenizer import open_tokenizer
from ssljax.data.vocabulary import Vocabulary
from ssljax.errors import UserError
from ssljax.evaluators.denoising import BitsPerByte
from ssljax.evaluators.infill import Infill
from ssljax.evaluators.ngram import NGram, bits_per_byte
from ssljax.evaluators.text import TextProbe

TEXTS = ["the cat sat on the mat. " * 4, "a dog dug a hole in the garden of the house. " * 3, "x"]


def corpus(layout="encoder_decoder"):
  text = Text(tokenizer="bytes", inputs_length=64, targets_length=48, layout=layout)
  mixture = text.mix(named("ul2"))
  tokenizer = open_tokenizer("bytes")
  ids = tokenizer.encode(TEXTS)
  store = types.SimpleNamespace(tokens=np.concatenate(ids), offsets=np.append(0, np.cumsum([len(i) for i in ids])))
  documents = type("Given", (), {"read": lambda self, row: TEXTS[row], "__len__": lambda self: len(TEXTS)})()
  return Corpus(text, documents, store, Vocabulary(tokenizer, mixture.mode_names, mixture.sentinels), mixture, ("", ""))


def probe(layout="encoder_decoder", *, score=None, write=None):
  said = []
  given = corpus(layout)
  return TextProbe(train=given, test=given, batch_size=4, score=score, write=write, say=said.append), said


def test_ngram_by_hand():
  """Order 0 on "aab": p(a) = (2 + 2/256) / 5, p(b) = (1 + 2/256) / 5, with T = 2 different bytes."""
  train, test = np.frombuffer(b"aab", np.uint8), np.frombuffer(b"ab", np.uint8)
  expected = -(math.log2((2 + 2 / 256) / 5) + math.log2((1 + 2 / 256) / 5)) / 2
  assert bits_per_byte(train, test, order=0) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("order", [1, 2])
def test_ngram_probabilities_add_up_to_one(order):
  """Every continuation of one context has a probability; together they are certain."""
  train = np.frombuffer(b"abracadabra, said the magician to the cat", np.uint8)
  context = b"ra" if order == 2 else b"a"
  tests = [np.frombuffer(context + bytes([c]), np.uint8) for c in range(256)]
  assert sum(2 ** -bits_per_byte(train, test, order=order) for test in tests) == pytest.approx(1, rel=1e-9)


def test_ngram_evaluator_knows_repeated_text():
  found = NGram(order=2)(probe()[0])["ngram/bits_per_byte"]
  assert found < NGram(order=0)(probe()[0])["ngram/bits_per_byte"] < 8
  with pytest.raises(UserError, match="order 3, expected 0 to 2"):
    NGram(order=3)


@pytest.mark.parametrize("layout", ["encoder_decoder", "decoder_only"])
def test_bits_per_byte_counts_every_row_once(layout):
  """Nats of all batches over bytes of all batches, though they differ; the bytes are those the plan hides."""
  seen, nats, rows_at_once = [], [], 4

  def score(arrays):
    assert len(arrays["targets"]) == rows_at_once
    seen.append(int(arrays["target_bytes"].sum()))
    nats.append(float(1 + len(seen) ** 2))
    return nats[-1], float(seen[-1])

  given, _ = probe(layout, score=score)
  found = BitsPerByte(mixture="ul2")(given)
  assert list(found) == ["R/bits_per_byte", "S/bits_per_byte", "X/bits_per_byte"]
  expected = 0
  for group in "RSX":
    mixture = given.test.text.mix(tuple(d for d in named("ul2") if d.group == group))
    examples = given.test.stream(seed=0, batch_size=4, mixture=mixture).plan(0).examples
    expected += int((examples.length - examples.visible).sum())
  assert sum(seen) == expected
  seen.clear(), nats.clear()
  rows_at_once = 1
  alone = BitsPerByte(mixture="span_corruption")(dataclasses.replace(given, batch_size=rows_at_once))["R/bits_per_byte"]
  assert len(seen) > 1 and alone == pytest.approx(sum(nats) / math.log(2) / sum(seen))


@pytest.mark.parametrize("layout", ["encoder_decoder", "decoder_only"])
def test_infill_shows_gaps_and_counts_right_ones(layout):
  """A writer that knows the answers fills every gap; one that says nothing fills none."""
  given, said = probe(layout, write=lambda prompts, most, temperature, seed: answers(prompts, most))
  evaluator = Infill(passages=2)

  def answers(prompts, most):
    gaps = evaluator._split(rows(given, evaluator))[1]
    return np.pad(gaps, ((0, 0), (0, most - gaps.shape[1])))

  assert evaluator(given)["infill/exact"] == 1
  assert sum("passage" in line for line in said) == 2 and any("<0>" in line and "was" in line for line in said)
  silent, _ = probe(layout, write=lambda prompts, most, temperature, seed: np.zeros((len(prompts), most), np.int64))
  assert evaluator(silent)["infill/exact"] == 0


def rows(given, evaluator):
  from ssljax.data.mixture import Denoiser

  gap = Denoiser(group="R", density=evaluator.density, mean_span=evaluator.mean_span)
  mixture = dataclasses.replace(given.test.text.mix((gap,)), row_inputs=None, row_targets=None)
  return given.test.stream(seed=0, batch_size=1, mixture=mixture).rows(np.arange(evaluator.passages))
