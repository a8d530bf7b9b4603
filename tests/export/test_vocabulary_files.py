"""A vocabulary beside exported weights: AutoTokenizer gives the run's ids, or nothing does."""

import functools
import io
import json
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssljax.commands.export import _write_vocabulary
from ssljax.data.corpus import Corpus
from ssljax.data.documents import Documents
from ssljax.data.tokenizer import ByteTokenizer, open_tokenizer
from ssljax.data.tokenizer_training import train
from ssljax.data.vocabulary import Vocabulary
from ssljax.export import fast_tokenizer, folder, vocabulary_files
from ssljax.export.hf_text import LlamaForCausalLM, T5ForConditionalGeneration
from ssljax.export.huggingface import quiet
from ssljax.export.native import Native
from ssljax.models.t5 import T5

_PROSE = "the quick brown fox jumps over a lazy dog while seven wizards brew strong coffee"
WORDS = _PROSE.split()
LINES = [f"{a} {b} {c}\n\tif {b}:\n        return {a}" for a in WORDS for b in WORDS[::3] for c in WORDS[::5]]
MODES = ("[NLU]", "[S2S]")
TEXTS = [
  "def f(x):\n\treturn  {x: '</s>'}  # the quick\r\n",
  "Größe, 日本語 و العربية, कखग, 👩🏽‍🚀🇫🇷, e\u0301 \u2581 \0 <0x41>",
  "",
  "   ",
]
# Words of the corpus, white space, and what SentencePiece and Hugging Face reserve.
TEXT = st.lists(
  st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.sampled_from(["quick brown", "\n", "\t", "\r\n", " ", "\u2581", "\u2585", "</s>", "<pad>", "<0x41>", "\0"]),
  ),
  max_size=6,
).map("".join)


class Given(Documents):
  """Texts given as a list."""

  def __init__(self, texts):
    self.texts = texts

  def __len__(self):
    return len(self.texts)

  def read(self, row):
    return self.texts[row]

  def name(self, row):
    return str(row)


def sentencepiece(**options):
  """The bytes of a SentencePiece model with T5's special ids and its normalisation."""
  from sentencepiece import SentencePieceTrainer

  model = io.BytesIO()
  given = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1, "vocab_size": 60, "hard_vocab_limit": False} | options
  SentencePieceTrainer.Train(sentence_iterator=iter(LINES), model_writer=model, minloglevel=2, **given)
  return model.getvalue()


def hugging_face():
  """A tokenizer.json with padding, a template and a mode token of its own."""
  from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

  pieces = ["[PAD]", "[SEP]", *sorted(pre_tokenizers.ByteLevel.alphabet()), "Ġqu"]
  made = Tokenizer(models.BPE({piece: number for number, piece in enumerate(pieces)}, []))
  made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  made.decoder = decoders.ByteLevel()
  made.add_special_tokens([AddedToken(piece, special=True) for piece in ("[PAD]", "[SEP]", "[S2S]")])
  made.post_processor = processors.TemplateProcessing(single="[SEP] $A", special_tokens=[("[SEP]", 1)])
  made.enable_padding(length=50)
  made.enable_truncation(3)
  return made.to_str().encode()


KINDS = ("bytes", "trained", "code", "t5", "json")


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
  place = tmp_path_factory.mktemp("tokenizers")
  train(LINES, vocab_size=320, out=place / "trained.model")
  train([*LINES, *["< / > 0 x 4 1"] * 50], vocab_size=320, out=place / "code.model")  # can spell what is reserved
  (place / "t5.model").write_bytes(sentencepiece(user_defined_symbols=["<ab>", "<abc>"]))
  (place / "two.model").write_bytes(sentencepiece(eos_id=2, unk_id=1))
  (place / "bpe.model").write_bytes(sentencepiece(model_type="bpe"))
  (place / "json.json").write_bytes(hugging_face())
  return {file.stem: open_tokenizer(str(file)) for file in place.iterdir()} | {"bytes": ByteTokenizer()}


def write(place, tokenizer, texts=TEXTS, *, ends=True, model_type="t5"):
  place.mkdir(exist_ok=True)
  (place / "config.json").write_text(json.dumps({"model_type": model_type, "vocab_size": 400}))
  return vocabulary_files.write(place, Vocabulary(tokenizer, MODES, 5), texts, ends=ends)


def load(place):
  from transformers import AutoTokenizer

  with quiet():
    return AutoTokenizer.from_pretrained(str(place), local_files_only=True)


@pytest.fixture(scope="module")
def theirs(opened, tmp_path_factory):
  place, found = tmp_path_factory.mktemp("folders"), {}
  for kind in KINDS:
    written = write(place / kind, opened[kind])
    assert written.loads, written.says
    found[kind] = load(place / kind)
  return found


def same(theirs, ours, text):
  """Whether both give the same ids, which are returned."""
  ids = theirs(text, add_special_tokens=False, split_special_tokens=True).input_ids
  assert ids == ours.encode([text])[0].tolist(), text
  return ids


@settings(deadline=None)
@given(text=TEXT)
def test_every_text_gets_the_ids_of_the_run_and_comes_back(theirs, opened, text):
  for kind in ("bytes", "trained", "code", "json"):
    ids = same(theirs[kind], opened[kind], text)
    assert theirs[kind].decode(ids) == text


@settings(deadline=None)
@given(
  text=st.lists(st.sampled_from([*"theqkx  \n\tﬁ½日<>c", "\uff21", "\u3000", "\u2581", "\u200b", "<ab>"])).map("".join)
)
def test_normalisation_and_white_space_of_a_model_like_t5s(theirs, opened, text):
  ids = same(theirs["t5"], opened["t5"], text)
  assert 2 in ids or theirs["t5"].decode(ids) == opened["t5"].decode(ids)


@pytest.mark.parametrize("kind", KINDS)
def test_ids_fall_where_the_vocabulary_has_them(kind, theirs, opened):
  vocabulary, found = Vocabulary(opened[kind], MODES, 5), theirs[kind]
  assert len(found) == vocabulary.size and found.convert_tokens_to_ids("<extra_id_0>") == vocabulary.size - 1
  assert (found.pad_token_id, found.eos_token_id) == (0, 1)
  inside = opened[kind].encode(["quick"])[0].tolist()
  expected = [vocabulary.mode("[S2S]"), *inside, vocabulary.last_sentinel, vocabulary.last_sentinel - 4, *inside, 1]
  assert found("[S2S]quick<extra_id_0><extra_id_4>quick").input_ids == expected
  assert found.decode(expected, skip_special_tokens=True).replace(" ", "") == "quickquick"
  assert [found.convert_ids_to_tokens(number) for number in vocabulary_files.names(vocabulary).values()] == list(
    vocabulary_files.names(vocabulary)
  )


def test_a_file_loses_its_template_and_its_limits(opened):
  made = fast_tokenizer.convert(opened["json"])
  assert (made.truncation, made.padding, made.post_processor) == (None, None, None)


def test_vocabulary_json_tells_the_ids(opened, tmp_path):
  write(tmp_path / "out", opened["trained"])
  assert json.loads((tmp_path / "out" / "vocabulary.json").read_text()) == {
    "tokenizer": "tokenizer.json",
    "pad": 0,
    "eos": 1,
    "modes": {"[NLU]": 320, "[S2S]": 321},
    "sentinels": {f"<extra_id_{span}>": 326 - span for span in range(5)},
  }
  special = json.loads((tmp_path / "out" / "special_tokens_map.json").read_text())
  assert (special["pad_token"], special["eos_token"], special["unk_token"]) == ("<pad>", "</s>", "<unk>")


def test_what_has_no_equivalent_leaves_its_file_alone(opened, tmp_path):
  written = write(tmp_path / "out", opened["bpe"])
  assert not written.loads
  assert written.says == (
    "nothing for AutoTokenizer: a BPE model of SentencePiece, not a unigram one; the pieces are those of spiece.model"
  )
  check_alone(tmp_path / "out", opened["bpe"])


@pytest.mark.parametrize(
  ("kind", "added", "says"),
  [("trained", "q", "text 0 of the run gets other ids"), ("json", "[another]", "[NLU] is not 260")],
)
def test_other_ids_leave_the_tokenizers_file_alone(kind, added, says, opened, tmp_path, monkeypatch):
  convert = fast_tokenizer.convert

  def with_one_more(tokenizer):
    made = convert(tokenizer)
    made.add_tokens([added])
    return made

  monkeypatch.setattr(fast_tokenizer, "convert", with_one_more)
  written = write(tmp_path / "out", opened[kind], ["the quick"])
  assert not written.loads and says in written.says
  check_alone(tmp_path / "out", opened[kind])


def check_alone(place, tokenizer):
  names = {file.name for file in place.iterdir()}
  assert names == {"config.json", "vocabulary.json", "tokenizer_config.json", tokenizer.file}
  assert (place / tokenizer.file).read_bytes() == tokenizer.data
  assert json.loads((place / "vocabulary.json").read_text())["tokenizer"] == tokenizer.file
  if tokenizer.file == "spiece.model":
    with pytest.raises(ValueError, match="Couldn't instantiate"):  # without our files it would guess from config.json
      load(place)


def run_of(tokenizer, texts):
  """As much of a run as its vocabulary's files need."""
  vocabulary = Vocabulary(tokenizer, MODES, 5)
  return types.SimpleNamespace(source=Corpus(None, Given(texts), None, vocabulary, None, ("", "")))


@pytest.mark.parametrize(
  ("peer", "start"), [(T5ForConditionalGeneration(), "decoder_start_token_id"), (LlamaForCausalLM(), "bos_token_id")]
)
def test_configs_and_the_end_of_a_text_are_as_the_class_is_used(peer, start, opened, tmp_path, capsys):
  from transformers import GenerationConfig

  (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5" if peer.ends else "llama", "vocab_size": 400}))
  found = _write_vocabulary(tmp_path, run=run_of(opened["two"], ["the quick " * 1000, "a lazy dog"]), peer=peer)
  assert found["tokenizer"].loads
  assert capsys.readouterr().out == "tokenizer: AutoTokenizer gives the ids of the run (compared on 2 texts)\n"
  ids = {"pad_token_id": 0, start: 0, "eos_token_id": 2}
  for name in ("config.json", "generation_config.json"):
    assert ids.items() <= json.loads((tmp_path / name).read_text()).items()
  assert json.loads((tmp_path / "config.json").read_text())["vocab_size"] == 400
  read = GenerationConfig.from_pretrained(str(tmp_path))
  assert {key: getattr(read, key) for key in ids} == ids
  expected = [*opened["two"].encode(["quick"])[0].tolist(), *([2] if peer.ends else [])]
  assert load(tmp_path)("quick").input_ids == expected


@pytest.mark.parametrize("kind", ["trained", "bytes"])
def test_a_folder_without_transformers_has_the_tokenizers_own_file(kind, opened, tmp_path):
  native = Native()
  model = {"model": T5(variant="small", vocab_size=400, width=16, depth=1, heads=2, head_width=8, hidden=16)}
  facts = {"objective": "x", "step": 1, "version": "0", "weights": "trained", "examples": 8, "evals": {}, "config": ""}
  beside = functools.partial(_write_vocabulary, run=run_of(opened[kind], ["a"]), peer=native)
  arrays = {"model/params/x": np.ones(3, np.float32)}
  folder.write(tmp_path / "out", native, model, arrays, {}, preprocessing=None, facts=facts, beside=beside)
  names = {file.name for file in (tmp_path / "out").iterdir()}
  assert "vocabulary.json" in names and ("spiece.model" in names) == (kind == "trained")
  says = "the pieces are those of spiece.model" if kind == "trained" else "the pieces are bytes"
  assert f"Tokenizer: {says}." in (tmp_path / "out" / "README.md").read_text()


def test_pictures_have_no_vocabulary(tmp_path):
  assert _write_vocabulary(tmp_path, run=types.SimpleNamespace(source=None), peer=Native()) == {}
  assert not list(tmp_path.iterdir())
