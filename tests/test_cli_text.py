"""The command line on text: a run through its commands, and the mistakes a user of text can make."""

import json
import pathlib

import pytest

from ssljax import runtime
from ssljax.cli import main

HERE = pathlib.Path(__file__).parent
CONFIG = f"--config={HERE}/tiny_text_config.py"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  folder = tmp_path_factory.mktemp("texts")
  lines = [
    json.dumps({"text": f"line {n}: " + "the cat sat on mat number " * (1 + n % 5) + str(n * n)}) for n in range(120)
  ]
  (folder / "texts.jsonl").write_text("\n".join(lines))
  return folder


@pytest.fixture(scope="module", autouse=True)
def environment(data):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(runtime, "start", lambda **_: None)
    patch.setenv("SSLJAX_TEST_DATA", str(data))
    patch.setenv("SSLJAX_CACHE", str(data / "cache"))
    yield


@pytest.fixture(scope="module", params=["", "decoder_only"])
def trained(request, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("runs") / "trained"
  assert main(["train", f"{CONFIG}:{request.param}", f"--workdir={workdir}"]) == 0
  return workdir, f"{CONFIG}:{request.param}"


def refused(capsys, *arguments):
  capsys.readouterr()
  assert main(list(arguments)) == 2
  error = capsys.readouterr().err.strip().splitlines()[-1]
  assert error.startswith("error: ")
  return error


def test_a_run_ends_with_bits_per_byte_beside_the_ngram(trained):
  workdir, _ = trained
  final = json.loads((workdir / "eval" / "final.json").read_text())
  assert {"R/bits_per_byte", "S/bits_per_byte", "X/bits_per_byte", "ngram/bits_per_byte"} <= final.keys()
  assert 0 < final["ngram/bits_per_byte"] < 8 and "untrained/X/bits_per_byte" in final
  assert (workdir / "report.html").is_file()


def test_infill_prints_passages(trained, capsys):
  workdir, _ = trained
  assert main(["eval", f"--workdir={workdir}", "--evals=infill"]) == 0
  printed = capsys.readouterr().out
  assert "passage 1:" in printed and "passage 2:" in printed and "greedy" in printed and "sampled" in printed


def test_resuming_with_another_vocabulary_is_refused(trained, capsys):
  workdir, config = trained
  error = refused(capsys, "train", config, f"--workdir={workdir}", "--config.data.text.modes=absent")
  assert "data.text.vocabulary" in error and error.count(" ids, tokenizer bytes") == 2


def test_preview_prints_every_denoiser(capsys):
  assert main(["data", "preview", CONFIG]) == 0
  printed = capsys.readouterr().out
  assert printed.count("original") == printed.count("target") == 7
  assert "are longer than the longest text" in printed.replace("\n", " ")
  assert "asked 0.15" in printed and "[NLG]" in printed and "padding" in printed


@pytest.mark.parametrize(
  ("override", "message"),
  [
    ("--config.objective.model.vocab_size=100", "vocab_size: found 100, expected at least"),
    ("--config.data.text.inputs_length=3", "no text fits denoiser R (mu 3, r 0.15)"),
    ("--config.data.text.mixture=ul3", "unknown mixture ul3"),
    ("--config.data.text.sentinels=2", "sentinels: found 2, expected at least"),
    ("--config.data.text.tokenizer=nowhere.model", "tokenizer: nowhere.model"),
    ("--config.data.text.tokenizer=train:many", "expected train:N"),
    ("--config.data.source=embedded:photos", "pictures, expected text"),
    ("--config.augment.name=views.Views", "augment: found a section, expected none for text"),
    ("--config.evaluation.source=embedded:python", "evaluation.source: found one"),
    ("--config.objective.groups=['Q']", "groups 'Q'"),
  ],
)
def test_mistakes(tmp_path, capsys, override, message):
  assert message in refused(capsys, "train", CONFIG, f"--workdir={tmp_path}/run", override)
