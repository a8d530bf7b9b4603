"""The command line on queries and blocks: a run, its preview, its plan's stand-in, and mistakes."""

import json
import pathlib

import numpy as np
import pytest

from ssljax import runtime
from ssljax.cli import main
from ssljax.commands.configs import load_config
from ssljax.evaluators import bm25
from ssljax.planning.stand_in import stand_in
from ssljax.training.config import parse
from ssljax.training.feed import open_feed
from ssljax.training.run import assemble
from ssljax.training.search_evaluation import SearchMeasure

CONFIG = f"{pathlib.Path(__file__).parent}/tiny_ict_config.py"


@pytest.fixture(scope="module", autouse=True)
def environment(tmp_path_factory):
  folder = tmp_path_factory.mktemp("texts")
  texts = ["".join(f"d{d} s{s}. " for s in range(2 + d % 9)) for d in range(90)]
  (folder / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(runtime, "start", lambda **_: None)
    patch.setenv("SSLJAX_TEST_DATA", str(folder))
    patch.setenv("SSLJAX_CACHE", str(folder / "cache"))
    yield


def test_a_run_ends_resumes_and_keeps_its_vocabulary(tmp_path, capsys):
  train = ["train", f"--config={CONFIG}", f"--workdir={tmp_path}/run"]
  assert main(train) == 0
  lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
  assert lines[-1]["step"] == 3 and 0 < lines[-1]["ict/probability"] < 1
  config = json.loads((tmp_path / "run" / "config.json").read_text())
  assert config["data"]["ict"]["vocabulary"] == "259 ids, tokenizer bytes" and (tmp_path / "run/report.html").is_file()
  printed = capsys.readouterr().out
  assert "cloze: 16 queries for 16 passages\n" in printed and "lead: 6 queries for 6 passages\n" in printed
  assert all(text in printed for text in ("cloze, held out", "lead, held out", "R@5", "nDCG@10", "trained + BM25"))
  scores = json.loads((tmp_path / "run" / "eval" / "final.json").read_text())
  assert scores["chance/cloze_r@1"] == pytest.approx(1 / 16)
  rows = {key.partition("/")[0] for key in scores} - {"train"}
  assert rows == {"chance", "bm25", "untrained", "trained", "trained_bm25"}
  assert main([*train, "--config.data.ict.keep=0.5"]) == 2
  assert "data.ict.keep (" in capsys.readouterr().err
  evaluated(tmp_path / "run", scores, capsys)


def evaluated(workdir, scores, capsys):
  """`ssljax eval` says the same of the last step."""
  capsys.readouterr()
  assert main(["eval", f"--workdir={workdir}", "--evals=retrieval"]) == 0
  again = json.loads((workdir / "eval" / "3.json").read_text())
  assert again and all(scores[key] == value for key, value in again.items())


def test_without_bm25s_one_line_says_so(monkeypatch):
  run, said = assemble(load_config(CONFIG)), []
  monkeypatch.setattr(bm25, "installed", lambda: False)
  measure = SearchMeasure(run, say=said.append)
  assert said[-1] == 'no row of BM25: it needs bm25s: pip install "ssljax[text]"' and len(said) == 3
  assert {key.partition("/")[0] for key in measure.baselines()} == {"chance"}


def test_a_task_of_ones_own(tmp_path):
  words = ["apple", "pear", "plum", "a very long passage that is cut where the block of this run ends, sadly"]
  texts = {"corpus": words, "queries": ["Plum?", "grape"]}
  for name, lines in texts.items():
    made = [json.dumps({"_id": f"{name[0]}{number}", "text": text}) for number, text in enumerate(lines)]
    (tmp_path / f"{name}.jsonl").write_text("\n".join(made))
  (tmp_path / "qrels").mkdir()
  (tmp_path / "qrels" / "dev.tsv").write_text("q0\tc2\t1\nq1\tc3\t1\n")
  overrides = [("source", f"beir:{tmp_path}"), ("test", "dev"), ("evals.retrieval.ks", "(1,)")]
  said = []
  run = assemble(load_config(CONFIG, [(f"evaluation.{key}", value) for key, value in overrides]))
  scores = SearchMeasure(run, say=said.append).baselines()
  assert said == ["queries: 2 queries for 4 passages; 0 queries and 1 passages are longer than their rows and are cut"]
  assert (scores["bm25/queries_r@1"], scores["chance/queries_r@1"]) == (0.5, 0.25)


def test_few_long_documents_are_asked_cloze_alone():
  said = []
  run = assemble(load_config(CONFIG, [("evaluation.evals.retrieval.ks", "(1,9)")]))
  assert {key.partition("_")[0] for key in SearchMeasure(run, say=said.append).baselines()} == {
    "chance/cloze",
    "bm25/cloze",
  }
  assert said == [
    "lead: left out, as 6 blocks have one of their document before them",
    "cloze: 16 queries for 16 passages",
  ]


def test_preview_prints_pairs(capsys):
  assert main(["data", "preview", f"--config={CONFIG}", "--rows=3"]) == 0
  printed = capsys.readouterr().out
  assert printed.count("query  'd") == printed.count("block  '") == 3 and "blocks of" in printed


def test_the_stand_in_has_the_shapes_of_the_data():
  job = parse(load_config(CONFIG))
  shapes = lambda batch: {key: (value.shape, value.dtype) for key, value in batch.arrays.items()}
  made = stand_in(batch_size=8, image_size=1, text=None, num_tasks=0, ict=job.data.ict).batch(0)
  assert shapes(made) == shapes(open_feed(job).stream.batch(0)) and np.all(made.arrays["query"])


@pytest.mark.parametrize(
  ("override", "message"),
  [
    ("objective.encoder.vocab_size=200", "encoder.vocab_size: found 200, expected at least 259"),
    ("objective.encoder={'name': 'text_tower.TextTower', 'vocab_size': 260}", "encoder.eos: found None, expected 1"),
    ("objective.encoder.length=20", "texts of 48 tokens, expected at most length=20"),
    ("data.source=embedded:photos", "pictures, expected text"),
    ("data.ict.keep=2.0", "data.ict.keep: found 2.0, expected a probability"),
    ("evaluation.evals.retrieval.ks=(1,16)", "evaluation.test: found 16 passages (cloze), expected more than 16"),
    ("evaluation.evals.knn={'name': 'knn.KNN'}", "evaluation.evals.knn: reads no searches"),
    ("evaluation.source=beir:nowhere", "nowhere/corpus.jsonl: No such file"),
    ("evaluation.source=embedded:emoji", "holds pictures, expected text"),
    ("evaluation.batch_size=9", "evaluation.batch_size: found 9, expected a multiple of 8 devices"),
    ("augment.name=views.Views", "augment: found a section, expected none for text (data.ict)"),
    ("data.text={'tokenizer': 'bytes', 'inputs_length': 9}", "data.ict: found a section beside data.text"),
  ],
)
def test_mistakes(tmp_path, capsys, override, message):
  assert main(["train", f"--config={CONFIG}", f"--workdir={tmp_path}/run", f"--config.{override}"]) == 2
  assert message in capsys.readouterr().err
