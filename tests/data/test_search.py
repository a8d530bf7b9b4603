"""What a retriever is asked: sentences out of their blocks, first sentences, and a user's own files."""

import json

import numpy as np
import pytest

from ssljax.data.beir import open_beir
from ssljax.data.ict import Cloze, open_passages
from ssljax.data.search import cloze, lead
from ssljax.errors import UserError

EOS = 1


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
  folder = tmp_path_factory.mktemp("search")
  texts = ["".join(f"d{d} s{s} {'x' * (s % 5)}. " for s in range(1 + d % 9)) for d in range(40)]
  (folder / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("SSLJAX_CACHE", str(folder / "cache"))
    yield f"text:{folder}/texts.jsonl"


@pytest.fixture(scope="module")
def passages(spec):
  options = Cloze(tokenizer="bytes", query_length=16, block_length=40)
  return open_passages(spec, options, split="all", trained_on=(spec, "all"))


def parts(text):
  return [part for part in text.split(". ") if part]


def test_cloze_asks_every_block_for_a_sentence_that_is_not_in_it(passages):
  search = cloze(passages)
  whole = passages.rows(np.arange(len(passages)), hidden=(np.zeros(len(passages), int),) * 2)
  assert len(search.queries) == len(search.passages) == len(passages) > 40
  assert list(search.relevance) == [{row: 1.0} for row in range(len(passages))]
  chosen = []
  for query, passage, row in zip(search.query_texts, search.passage_texts, whole, strict=True):
    sentences = parts(passages.tokenizer.decode(row))
    assert parts(query)[0] in sentences and query not in passage and len(parts(passage)) == len(sentences) - 1
    chosen.append(sentences.index(parts(query)[0]))
  assert len(set(chosen)) > 1 and search.about == f"cloze: {len(passages)} queries for {len(passages)} passages"
  np.testing.assert_array_equal(cloze(passages).queries, search.queries)
  assert all(row[np.count_nonzero(row) - 1] == EOS for row in (*search.queries, *search.passages))


def test_lead_asks_with_a_first_sentence_for_the_blocks_behind_the_first(passages):
  search = lead(passages)
  assert all(" s0 " in query and len(parts(query)) == 1 for query in search.query_texts)
  assert not any(" s0 " in passage for passage in search.passage_texts)
  document = lambda text: text.split()[0]
  for query, relevance in zip(search.query_texts, search.relevance, strict=True):
    right = {n for n, passage in enumerate(search.passage_texts) if document(passage) == document(query)}
    assert set(relevance) == right and right
  assert {document(text) for text in search.query_texts} == {document(text) for text in search.passage_texts}


def test_short_documents_and_too_few(tmp_path, monkeypatch):
  monkeypatch.setenv("SSLJAX_CACHE", str(tmp_path / "cache"))
  options = Cloze(tokenizer="bytes", query_length=16, block_length=40)

  def opened(*texts):
    (tmp_path / "few.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    spec = f"text:{tmp_path}/few.jsonl"
    return open_passages(spec, options, split="all", trained_on=(spec, "all"), key="evaluation.source")

  short = opened("A. Sentence.", "One alone.", "B. Sentence.")
  assert lead(short) is None and len(cloze(short).queries) == 2
  with pytest.raises(UserError, match=r"evaluation.test: found 1 block of sentences, expected at least 2"):
    cloze(opened("A. Sentence.", "One alone."))
  with pytest.raises(UserError, match=r"evaluation.source: text:.*few.jsonl \(all\) has no document of two sentences"):
    opened("One alone.", "Two alone.")


CORPUS = [
  {"_id": "a", "title": "On cats", "text": "they sleep"},
  {"_id": "b", "text": "x" * 60},
  {"_id": "q", "text": ""},
]
QUERIES = [{"_id": "q", "text": "who sleeps then"}, {"_id": "r", "text": "y" * 16}, {"_id": "s", "text": "never asked"}]
QRELS = ["query-id\tcorpus-id\tscore", "q\ta\t2", "q\tq\t1", "r\tb\t1", "r\ta\t1", "s\ta\t0"]


def write(folder, corpus=CORPUS, queries=QUERIES, qrels=QRELS):
  (folder / "qrels").mkdir(exist_ok=True)
  for name, lines in (("corpus", corpus), ("queries", queries)):
    made = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / f"{name}.jsonl").write_text("\n".join(made))
  (folder / "qrels" / "dev.tsv").write_text("\n".join(qrels) + "\n")
  return str(folder)


def test_files_of_beirs_form(passages, tmp_path):
  search = open_beir(write(tmp_path), passages, split="dev")
  assert search.query_texts == ["who sleeps then", "y" * 16] and search.passage_texts[0] == "On cats they sleep"
  assert list(search.relevance) == [{0: 2.0}, {1: 1.0, 0: 1.0}]
  assert search.same.tolist() == [2, -1] and search.cut == (1, 1)
  assert "1 queries and 1 passages are longer than their rows and are cut" in search.about
  decode = passages.tokenizer.decode
  assert decode(search.queries[1]) == "y" * 15 and decode(search.passages[1]) == "x" * 39
  assert decode(search.passages[0]) == "On cats they sleep" and search.passages[2].tolist() == [EOS] + [0] * 39


@pytest.mark.parametrize(
  ("files", "message"),
  [
    (dict(corpus=["{"]), "corpus.jsonl:1: no JSON"),
    (dict(corpus=["[" * 100_000]), "corpus.jsonl:1: no JSON"),
    (dict(corpus=["[1]"]), r"corpus.jsonl:1: found '\[1\]', expected an object with texts _id and text"),
    (dict(corpus=[{"_id": 3, "text": "x"}]), "expected an object with texts _id and text"),
    (dict(corpus=[{"_id": "a"}]), "expected an object with texts _id and text"),
    (dict(corpus=[*CORPUS, CORPUS[0]]), "corpus.jsonl:4: found the _id 'a' again"),
    (dict(corpus=["x" * (2**20 + 1)]), "corpus.jsonl:1: found more than 1,048,576 bytes"),
    (dict(qrels=["q a 2"]), "dev.tsv:1: found 'q a 2', expected query-id, corpus-id, score, with tabs between"),
    (dict(qrels=["q\ta\tmuch"]), "dev.tsv:1: found 'q.*much', expected query-id"),
    (dict(qrels=["q\ta\tnan"]), "dev.tsv:1: found"),
    (dict(qrels=["p\ta\t1"]), "dev.tsv:1: found 'p', expected an _id of queries.jsonl"),
    (dict(qrels=["q\tp\t1"]), "dev.tsv:1: found 'p', expected an _id of corpus.jsonl"),
    (dict(qrels=["q\ta\t0", "q\tq\t1"]), "dev.tsv has no score above 0"),
  ],
)
def test_what_does_not_fit_is_named(passages, tmp_path, files, message):
  with pytest.raises(UserError, match=message):
    open_beir(write(tmp_path, **files), passages, split="dev")


def test_limits_and_places(passages, tmp_path, monkeypatch):
  folder = write(tmp_path)
  with pytest.raises(UserError, match=r"evaluation.test: found '\.\./x', expected the name of a file"):
    open_beir(folder, passages, split="../x")
  with pytest.raises(UserError, match=r"test.tsv: No such file"):
    open_beir(folder, passages, split="test")
  monkeypatch.setattr("ssljax.data.beir.MAX_PASSAGES", 2)
  with pytest.raises(UserError, match=r"corpus.jsonl: found more than 2 lines"):
    open_beir(folder, passages, split="dev")
  (tmp_path / "corpus.jsonl").unlink()
  (tmp_path / "corpus.jsonl").mkdir()
  with pytest.raises(UserError, match="found no file, expected one"):
    open_beir(folder, passages, split="dev")
