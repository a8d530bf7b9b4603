import json
import pickle
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from text_corpus import LINES

from ssljax.data import tokenizer as tokenizers
from ssljax.data.tokenizer import ByteTokenizer, open_tokenizer
from ssljax.data.tokenizer_training import train
from ssljax.errors import UserError

# Words of the corpus, white space, and what SentencePiece and Hugging Face reserve.
TEXT = st.lists(
  st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.sampled_from(["quick brown", "\n", "\t", "\r\n", "   ", "\u2581", "\u2585", "</s>", "<pad>", "<0x41>", "\0"]),
  ),
  max_size=6,
).map("".join)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  path = tmp_path_factory.mktemp("tokenizer") / "tiny.model"
  train(LINES, vocab_size=320, out=path)
  return path


def hugging_face(path, vocabulary, *, decoder="ByteLevel"):
  """A tokenizer.json whose pieces are whole bytes or characters."""
  from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

  made = Tokenizer(models.BPE(vocabulary, []))
  if decoder == "ByteLevel":
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
  else:
    made.decoder = decoders.Fuse()
  made.add_special_tokens([AddedToken(piece, special=True) for piece in ("<pad>", "</s>") if piece in vocabulary])
  made.enable_padding(length=50)
  made.enable_truncation(3)
  made.save(str(path))
  return path


@pytest.fixture(scope="module")
def json_file(tmp_path_factory):
  from tokenizers.pre_tokenizers import ByteLevel

  pieces = ["<pad>", "</s>", *sorted(ByteLevel.alphabet())]
  return hugging_face(tmp_path_factory.mktemp("hf") / "tokenizer.json", {p: i for i, p in enumerate(pieces)})


@pytest.fixture(params=["bytes", "model", "json_file"])
def any_tokenizer(request):
  return open_tokenizer("bytes" if request.param == "bytes" else str(request.getfixturevalue(request.param)))


def test_bytes_are_those_of_byt5():
  found = ByteTokenizer()
  assert found.encode(["hé", ""])[0].tolist() == [107, 198, 172] and found.encode([""])[0].shape == (0,)
  assert (found.size, found.pad, found.eos, found.fingerprint) == (259, 0, 1, "bytes")
  assert found.decode([0, 107, 198, 172, 1, 300, -1]) == "hé" and found.decode([198]) == "\ufffd"
  assert (found.id("</s>"), found.id("<0x0A>"), found.id("a")) == (1, 13, None)


@given(texts=st.lists(TEXT, min_size=1, max_size=3))
def test_every_text_comes_back(model, json_file, texts):
  for found in (ByteTokenizer(), open_tokenizer(str(model)), open_tokenizer(str(json_file))):
    for text, ids in zip(texts, found.encode(texts), strict=True):
      assert ids.dtype == np.int32 and found.decode(ids) == text
      assert not set(ids.tolist()) & {found.pad, found.eos}
      assert found.bytes_of[ids].sum() == len(text.encode())


def test_special_ids_and_foreign_ids_decode_to_nothing(any_tokenizer):
  ids = any_tokenizer.encode(["fox"])[0].tolist()
  assert any_tokenizer.decode([0, *ids, any_tokenizer.eos, any_tokenizer.size, -5]) == "fox"
  assert any_tokenizer.id("<pad>") == any_tokenizer.pad == 0 and any_tokenizer.id("</s>") == any_tokenizer.eos == 1
  assert any_tokenizer.id("no such piece") is None
  assert any_tokenizer.bytes_of.shape == (any_tokenizer.size,) and any_tokenizer.bytes_of[:2].tolist() == [0, 0]


def test_it_survives_pickling(any_tokenizer):
  again = pickle.loads(pickle.dumps(any_tokenizer))
  text = "seven wizards</s>\n"
  assert again.encode([text])[0].tolist() == any_tokenizer.encode([text])[0].tolist()
  assert again.fingerprint == any_tokenizer.fingerprint and again.decode(again.encode([text])[0]) == text


def test_training_is_deterministic_and_learns_words(model, tmp_path):
  again = train(LINES, vocab_size=320, out=tmp_path / "again.model")
  assert (tmp_path / "again.model").read_bytes() == model.read_bytes() and again.size == 320
  assert [again.id(piece) for piece in ("<pad>", "</s>", "<unk>", "\n", "\t", "<0x00>")] == [0, 1, 2, 3, 4, 5]
  assert again.bytes_of[again.id("<0xE2>")] == 1 and again.bytes_of[2] == 0
  assert sum(map(len, again.encode(LINES))) < 0.5 * sum(map(len, LINES))
  assert [path.name for path in tmp_path.iterdir()] == ["again.model"]


@pytest.mark.parametrize(
  ("size", "texts", "says"),
  [
    (100, LINES, "--vocab_size: found 100, expected at least 261"),
    (100_000, LINES, "--vocab_size: 100000 does not fit the texts: Vocabulary size too high"),
    (300, [], "--vocab_size: 300 does not fit the texts"),
  ],
)
def test_a_vocabulary_that_does_not_fit_is_refused(size, texts, says, tmp_path):
  with pytest.raises(UserError, match=says) as error:
    train(texts, vocab_size=size, out=tmp_path / "x.model")
  assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


def test_paths_to_write_to_are_checked(tmp_path):
  for out in (tmp_path / "x.json", tmp_path / "nowhere" / "x.model"):
    with pytest.raises(UserError, match=r"expected a \.model file in a folder that exists"):
      train(LINES, vocab_size=320, out=out)


def test_files_that_are_no_tokenizer_are_named(tmp_path, monkeypatch):
  (tmp_path / "empty.model").touch()
  (tmp_path / "bad.model").write_bytes(b"\x80\x04nonsense")
  (tmp_path / "bad.json").write_bytes(b"\xff{}")
  for name, says in {
    "byte": r"found byte \(did you mean bytes\?",
    f"{tmp_path}/none.model": "none.model: No such file",
    f"{tmp_path}/empty.model": "found an empty file",
    f"{tmp_path}/bad.model": "no SentencePiece model",
    f"{tmp_path}/bad.json": "no tokenizer.json of Hugging Face",
  }.items():
    with pytest.raises(UserError, match=says):
      open_tokenizer(name)
  monkeypatch.setattr(tokenizers, "MAX_BYTES", 4)
  with pytest.raises(UserError, match="found more than 4 bytes"):
    open_tokenizer(f"{tmp_path}/bad.model")


def test_id_0_must_be_padding_and_a_text_must_end(tmp_path):
  import io

  from sentencepiece import SentencePieceTrainer

  unpadded = io.BytesIO()
  SentencePieceTrainer.Train(sentence_iterator=iter(LINES), model_writer=unpadded, vocab_size=45, minloglevel=2)
  (tmp_path / "unk.model").write_bytes(unpadded.getvalue())
  gpt2 = hugging_face(tmp_path / "gpt2.json", {"!": 0, "</s>": 1})
  endless = hugging_face(tmp_path / "endless.json", {"<pad>": 0, "a": 1})
  for path, says in (
    (tmp_path / "unk.model", "found id 0 = '<unk>', expected the padding"),
    (gpt2, "found id 0 = '!', expected the padding"),
    (endless, "found no end of text"),
  ):
    with pytest.raises(UserError, match=says):
      open_tokenizer(str(path))


def test_characters_are_counted_as_bytes(tmp_path):
  path = hugging_face(tmp_path / "t.json", {"<pad>": 0, "</s>": 1, "é": 2, "\u2581": 3, "<0x0A>": 4}, decoder="Fuse")
  assert json.loads(path.read_text())["padding"] and open_tokenizer(str(path)).bytes_of.tolist() == [0, 0, 2, 1, 1]
  assert open_tokenizer(str(path)).encode(["éé"])[0].tolist() == [2, 2]


@pytest.mark.parametrize(("package", "suffix"), [("sentencepiece", "model"), ("tokenizers", "json")])
def test_a_missing_package_is_named(package, suffix, tmp_path, monkeypatch):
  (tmp_path / f"x.{suffix}").write_bytes(b"x")
  monkeypatch.setitem(sys.modules, package, None)
  with pytest.raises(UserError, match=rf'x\.{suffix} needs {package}: pip install "ssljax\[text\]"'):
    open_tokenizer(f"{tmp_path}/x.{suffix}")
