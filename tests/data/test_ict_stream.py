"""Queries and blocks: each query is of its block, kept as often as asked, the same for ever, whoever reads it."""

import json
import pickle

import numpy as np
import pytest

from ssljax.data.ict import Cloze, open_passages
from ssljax.data.tasks import Replay, TaskStream
from ssljax.errors import UserError

CLOZE = dict(tokenizer="bytes", query_length=24, block_length=64)
EOS = 1


def sentence(document, number):
  return f"d{document} s{number} " + "abcdefghij"[: number * 2 % 7] + ". "


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
  folder = tmp_path_factory.mktemp("ict")
  texts = ["".join(sentence(d, s) for s in range(1 + d % 12)) for d in range(60)]
  (folder / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("SSLJAX_CACHE", str(folder / "cache"))
    yield f"text:{folder}/texts.jsonl"


def passages(spec, **options):
  return open_passages(spec, Cloze(**CLOZE | options), split="all", trained_on=(spec, "all"))


@pytest.fixture(scope="module")
def opened(spec):
  return passages(spec)


def words(passages, row):
  used = int(np.count_nonzero(row))
  assert row[used - 1] == EOS and not row[used:].any()
  return passages.tokenizer.decode(row)


def test_an_epoch_has_every_block_once_and_most_queries_are_missing_from_theirs(opened):
  arrays = opened.stream(seed=3, batch_size=len(opened)).batch(0).arrays
  pairs = zip(arrays["query"], arrays["block"], strict=True)
  pairs = [(words(opened, query), words(opened, block)) for query, block in pairs]
  for query, block in pairs:
    assert block and {part.split()[0] for part in (query + block).split(". ") if part} == {query.split()[0]}
  documents = {query.split()[0] for query, _ in pairs}
  assert documents == {f"d{d}" for d in range(60) if d % 12 > 0}  # the others have one sentence
  assert opened.blocks.left_out >= 5
  assert 0 < sum(query in block for query, block in pairs) < 0.25 * len(pairs)


def test_every_sentence_of_a_block_becomes_a_query_and_the_share_kept_is_as_asked(opened):
  stream = opened.stream(seed=0, batch_size=4000)
  chosen, kept = stream.draw(np.arange(4000))
  assert kept.mean() == pytest.approx(0.1, abs=5 * 0.3 / 4000**0.5)
  assert np.abs(np.histogram(chosen, 10, (0, 1))[0] / 4000 - 0.1).max() < 5 * 0.3 / 4000**0.5
  assert abs(np.corrcoef(chosen, kept)[0, 1]) < 5 / 4000**0.5


@pytest.mark.parametrize(("keep", "share"), [(0.0, 0.0), (1.0, 1.0)])
def test_never_and_always_kept(spec, keep, share):
  found = passages(spec, keep=keep)
  arrays = found.stream(seed=3, batch_size=64).batch(0).arrays
  inside = [words(found, q) in words(found, b) for q, b in zip(arrays["query"], arrays["block"], strict=True)]
  assert np.mean(inside) == share


def test_batches_are_a_function_of_seed_and_step_whoever_reads(opened):
  stream = opened.stream(seed=5, batch_size=8)
  late = stream.batch(40).arrays
  parts = [
    pickle.loads(pickle.dumps(opened.stream(seed=5, batch_size=8, host=h, num_hosts=2))).batch(40) for h in (0, 1)
  ]
  for key, value in late.items():
    np.testing.assert_array_equal(value, np.concatenate([part.arrays[key] for part in parts]))
  assert late["query"].dtype == np.int32 and late["query"].shape == (8, 24) and late["block"].shape == (8, 64)
  assert (opened.stream(seed=6, batch_size=8).batch(40).arrays["block"] != late["block"]).any()
  batches = stream.iterate(39)
  next(batches)
  np.testing.assert_array_equal(next(batches).arrays["block"], late["block"])
  batches.close()


def test_passages_may_be_tasks_with_replay(opened):
  streams = tuple(opened.stream(seed=s, batch_size=8) for s in (0, 1))
  stream = TaskStream(streams=streams, ends=(3, 6), seed=0, batch_size=8, replay=Replay(share=0.25, capacity=10))
  arrays = stream.batch(4).arrays
  assert set(arrays) == {"query", "block", "index", "task"} and np.bincount(arrays["task"]).tolist() == [2, 6]


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(query_length=7), "data.ict.query_length: found 7, expected at least 8"),
    (dict(block_length=47), "data.ict.block_length: found 47, expected at least 2 query_length = 48"),
    (dict(keep=1.1), "data.ict.keep: found 1.1, expected a probability"),
    (dict(tokenizer="train:many"), "expected train:N"),
    (dict(vocabulary="9 ids, tokenizer x"), "data.ict.tokenizer: found 259 ids, tokenizer bytes, expected 9 ids"),
  ],
)
def test_mistakes(spec, options, message):
  with pytest.raises(UserError, match=message):
    passages(spec, **options)


def test_texts_of_one_sentence_have_no_blocks(tmp_path):
  (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": f"number {n}"}) for n in range(9)))
  with pytest.raises(UserError, match="no document of two sentences"):
    passages(f"text:{tmp_path}/a.jsonl")
