"""Where sentences end, that nothing of a text is lost, and their tokens in the cache."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from text_corpus import Given

from ssljax.data import tokens as module
from ssljax.data.sentences import Sentences, open_sentences, split_sentences
from ssljax.data.tokenizer import ByteTokenizer


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    ("One. Two!  Three?", ["One. ", "Two!  ", "Three?"]),
    ('He said "no." Then he left.\n', ['He said "no." ', "Then he left.\n"]),
    ("a wrapped\nline (see 3.14). Next", ["a wrapped\nline (see 3.14). ", "Next"]),
    ("def f():\n  return 1\n\n\ndef g():\n  return 2\n", ["def f():\n  return 1\n\n\n", "def g():\n  return 2\n"]),
    ("  \n\n  begins late. Yes", ["  \n\n  begins late. ", "Yes"]),
    ("\u4e00\u3002\u4e8c\uff01\u4e09", ["\u4e00\u3002", "\u4e8c\uff01", "\u4e09"]),
    ("Dr. Who", ["Dr. ", "Who"]),
    ("no end", ["no end"]),
  ],
)
def test_where_sentences_end(text, expected):
  assert split_sentences(text) == expected


@given(st.text(alphabet='ab .!?"\n\t\r\u3002)', min_size=1))
def test_sentences_put_together_are_the_text(text):
  pieces = split_sentences(text)
  assert "".join(pieces) == text
  assert not text.strip() or all(piece.strip() for piece in pieces)


TEXTS = ["One two. Three. ", "", "Alone", "Four! Five? Six. End"]


def test_tokens_of_sentences_know_their_documents(tmp_path, monkeypatch):
  monkeypatch.setattr(module, "_BATCH", 4)  # several batches
  found = open_sentences(Given(TEXTS), ByteTokenizer(), cache=tmp_path)
  sentences = [piece for text in TEXTS for piece in split_sentences(text)]
  assert [ByteTokenizer().decode(found.document(row)) for row in range(len(found))] == sentences
  assert found.documents.tolist() == [0, 2, 2, 3, 7] and found.num_bytes == sum(map(len, TEXTS))
  copy = pickle.loads(pickle.dumps(found))
  assert isinstance(copy, Sentences) and np.array_equal(copy.documents, found.documents)
  monkeypatch.setattr(Given, "read", None)  # from the cache
  assert len(open_sentences(Given(TEXTS), ByteTokenizer(), cache=tmp_path)) == 7


class Silent(ByteTokenizer):
  """Makes nothing of "Three. "."""

  fingerprint = "silent"

  def encode(self, texts):
    return [
      ids[: 0 if text.startswith("Three") else None] for text, ids in zip(texts, super().encode(texts), strict=True)
    ]


def test_a_sentence_without_tokens_is_left_out(tmp_path):
  found = open_sentences(Given(TEXTS), Silent(), cache=tmp_path)
  assert len(found) == 6 and found.dropped == 1 and found.documents.tolist() == [0, 1, 1, 2, 6]
