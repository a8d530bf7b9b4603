"""The command line on pictures with captions: a run, its preview and plan, and the mistakes a user can make."""

import json
import pathlib

import numpy as np
import pytest
from pairs_file import inline, write_pairs
from PIL import Image

from ssljax import runtime
from ssljax.cli import main

HERE = pathlib.Path(__file__).parent
CONFIG = f"--config={HERE}/tiny_pairs_config.py"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  folder = tmp_path_factory.mktemp("pairs")
  write_pairs(folder, [inline(4 * n, caption="cut it here, please" if n == 3 else f"nr {n}") for n in range(40)])
  np.savez(folder / "pictures.npz", image=np.zeros((40, 8, 8, 3), np.uint8))
  return folder


@pytest.fixture(scope="module", autouse=True)
def environment(data):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(runtime, "start", lambda **_: None)
    patch.setenv("SSLJAX_TEST_DATA", str(data))
    yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("runs") / "trained"
  assert main(["train", CONFIG, f"--workdir={workdir}"]) == 0
  return workdir


def refused(capsys, *arguments):
  capsys.readouterr()
  assert main(list(arguments)) == 2
  error = capsys.readouterr().err.strip().splitlines()[-1]
  assert error.startswith("error: ")
  return error


def test_a_run_remembers_its_vocabulary_and_shows_captions(trained):
  config = json.loads((trained / "config.json").read_text())
  assert config["data"]["captions"]["vocabulary"] == "259 ids, tokenizer bytes"
  sheet = np.asarray(Image.open(trained / "pictures" / "1_views.png"))
  assert (sheet[:, -200:] < 200).any()  # texts at the right


def test_it_resumes_and_says_what_is_cut(trained, capsys):
  assert main(["train", CONFIG, f"--workdir={trained}", "--config.steps=3"]) == 0
  line = "captions: 1 of 40 are longer than 12 tokens (data.captions.length) and are cut"
  assert line in capsys.readouterr().err
  assert (trained / "checkpoints" / "3").is_dir()


def test_another_vocabulary_is_refused(trained, tmp_path, capsys, monkeypatch):
  config = json.loads((trained / "config.json").read_text())
  config["data"]["captions"]["vocabulary"] = "7 ids, tokenizer other"
  (tmp_path / "other" / "checkpoints").mkdir(parents=True)
  (tmp_path / "other" / "config.json").write_text(json.dumps(config))
  assert "captions.vocabulary ('7 ids" in refused(capsys, "train", CONFIG, f"--workdir={tmp_path}/other")
  error = refused(capsys, "train", CONFIG, f"--workdir={tmp_path}/new", f"--from={tmp_path}/other")
  assert "was trained with 7 ids, tokenizer other, this config makes 259 ids" in error


def test_preview_draws_captions(data, tmp_path, capsys):
  assert main(["data", "preview", CONFIG, f"--out={tmp_path}/x.png", "--rows=4"]) == 0
  printed = capsys.readouterr().out
  assert "40 records, licence unknown" in printed and "captions: 1 of 40" in printed
  assert (np.asarray(Image.open(tmp_path / "x.png"))[:, -200:] < 200).any()


def test_a_stream_of_pairs_is_put_together(data, monkeypatch):
  from ssljax.commands.configs import load_config
  from ssljax.training.run import assemble

  spec = write_pairs(data / "second", [inline(n, caption=f"second {n}") for n in range(9)])
  config = load_config(CONFIG.partition("=")[2], [("steps", "0"), ("data.source", "None")])
  first = f"pairs:{data}/pairs.jsonl"
  config["stream"] = [
    {"name": name, "steps": 2, "source": source, "split": "all"} for name, source in (("a", first), ("b", spec))
  ]
  run = assemble(config)
  assert run.config["data"]["captions"]["vocabulary"] == run.captioner.identity
  for step, word in ((1, "nr "), (2, "second ")):
    batch = run.stream.batch(step).arrays
    assert all(run.captioner.decode(row).startswith(word) for row in batch["text"]) and "label" not in batch


@pytest.mark.parametrize(
  ("override", "message"),
  [
    ("--config.data.source=npz:{data}/pictures.npz", "has no captions, expected pictures that have: pairs:"),
    ("--config.data.captions=None", "clip.CLIP reads 'text', but augment views.Views and the data make"),
    ("--config.data.captions.length=13", "texts of 13 tokens, expected at most length=12"),
    ("--config.data.captions.pick=best", "unknown value best (did you mean"),
    (
      "--config.objective.model.text.encoder.vocab_size=200",
      "vocab_size: found 200, expected at least 259, the ids of the texts",
    ),
    ("--config.objective.model.text.encoder.eos=None", "encoder.eos: found None, expected 1, which ends the texts"),
    ("--config.objective.model.text.encoder.eos=2", "encoder.eos: found 2, expected 1"),
  ],
)
def test_mistakes(data, tmp_path, capsys, override, message):
  assert message in refused(capsys, "train", CONFIG, f"--workdir={tmp_path}/run", override.format(data=data))


def test_text_and_captions_exclude_each_other():
  from ssljax.data.captions import Captions
  from ssljax.data.corpus import Text
  from ssljax.errors import UserError
  from ssljax.training.config import Data

  with pytest.raises(UserError, match="expected none for text"):
    Data(batch_size=1, text=Text(tokenizer="bytes", inputs_length=8), captions=Captions(tokenizer="bytes"))
