import pickle

import numpy as np
import pytest
from text_corpus import Given

from ssljax.data import tokens as module
from ssljax.data.tokenizer import ByteTokenizer
from ssljax.data.tokens import Tokens, open_tokens
from ssljax.errors import UserError

TEXTS = ["one", "", "é", "x", "the last\n"]


class Wide(ByteTokenizer):
  """Ids above 16 bits."""

  size, fingerprint = 2**20, "wide"

  def encode(self, texts):
    return [ids + 2**17 for ids in super().encode(texts)]


def test_documents_lie_end_to_end(tmp_path, monkeypatch):
  monkeypatch.setattr(module, "_BATCH", 4)  # several batches
  tokens = open_tokens(Given(TEXTS), ByteTokenizer(), cache=tmp_path)
  kept = [text for text in TEXTS if text]
  assert len(tokens) == 4 and tokens.dropped == 1 and tokens.num_bytes == sum(len(t.encode()) for t in kept)
  assert [ByteTokenizer().decode(tokens.document(row)) for row in range(4)] == kept
  assert tokens.tokens.dtype == np.uint16 and tokens.offsets.tolist() == [0, 3, 5, 6, 15]
  assert tokens.document(2).tolist() == [ord("x") + 3] and tokens.document(2).dtype == np.int32


def test_ids_above_16_bits_are_kept(tmp_path):
  tokens = open_tokens(Given(TEXTS), Wide(), cache=tmp_path)
  assert tokens.tokens.dtype == np.uint32 and tokens.document(2).tolist() == [2**17 + ord("x") + 3]


def test_the_cache_is_used_until_texts_or_tokenizer_change(tmp_path, monkeypatch):
  reads = []
  monkeypatch.setattr(Given, "read", lambda self, row: reads.append(row) or self.texts[row])
  for fingerprint, tokenizer, read in (("a", ByteTokenizer(), 5), ("a", ByteTokenizer(), 5), ("b", ByteTokenizer(), 10),
                                       ("b", Wide(), 15), ("a", ByteTokenizer(), 15)):  # fmt: skip
    open_tokens(Given(TEXTS, fingerprint), tokenizer, cache=tmp_path)
    assert len(reads) == read
  assert len(list(tmp_path.iterdir())) == 3


def test_what_was_broken_off_leaves_nothing(tmp_path, monkeypatch):
  def fails(self, row):
    raise KeyboardInterrupt if row == 3 else AssertionError

  with monkeypatch.context() as patch:
    patch.setattr(Given, "read", fails)
    with pytest.raises(AssertionError):
      open_tokens(Given(TEXTS), ByteTokenizer(), cache=tmp_path)
  assert not list(tmp_path.iterdir())
  assert len(open_tokens(Given(TEXTS), ByteTokenizer(), cache=tmp_path)) == 4


def test_pickling_keeps_the_path_alone(tmp_path):
  tokens = open_tokens(Given(["abc" * 100_000]), ByteTokenizer(), cache=tmp_path)
  tokens.document(0)
  data = pickle.dumps(tokens)
  assert len(data) < 1000 and pickle.loads(data).document(0).tolist() == tokens.document(0).tolist()


def test_texts_without_tokens_are_refused(tmp_path):
  with pytest.raises(UserError, match=r"given\[0\] and the other 1 documents give no token"):
    open_tokens(Given(["", ""]), ByteTokenizer(), cache=tmp_path)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("file", ["tokens.bin", "offsets.npy", "meta.json"])
def test_a_damaged_cache_is_named(file, tmp_path):
  folder = open_tokens(Given(TEXTS), ByteTokenizer(), cache=tmp_path).folder
  (folder / file).write_bytes((folder / file).read_bytes()[:-4])
  with pytest.raises(UserError, match=f"cache: {folder} is damaged .*delete it"):
    Tokens(folder)


def test_progress_is_said(tmp_path, monkeypatch):
  monkeypatch.setattr(module, "_EVERY", -1.0)
  said = []
  open_tokens(Given(TEXTS), ByteTokenizer(), cache=tmp_path, say=said.append)
  assert said == ["tokens: 5 of 5 documents, 0 MB of text"]
