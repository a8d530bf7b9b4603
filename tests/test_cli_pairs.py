"""The command line on pictures with captions: a run, its preview and plan, and the mistakes a user can make."""

import json
import pathlib
import types

import numpy as np
import pytest
from pairs_file import inline, write_pairs
from PIL import Image

from ssljax import runtime
from ssljax.cli import main
from ssljax.commands import final
from ssljax.data.captions import Captioner, Captions
from ssljax.training.pair_evaluation import PairMeasure

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


def test_two_captions_are_shown_side_by_side():
  captioner = Captioner(Captions(tokenizer="bytes", length=6, pick="two"))
  texts = captioner.rows([("a", "bc")], seed=0, positions=np.arange(1))
  run = types.SimpleNamespace(captioner=captioner)
  assert final._captions(run, {"texts": texts}) == ["a [2 of 6 tokens] | bc [3 of 6 tokens]"]


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


def test_a_stream_of_pairs_knows_what_it_retrieves_after_each_task(data, tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(PairMeasure, "features", lambda *_: pytest.fail("no evaluator reads them"))
  spec = f"pairs:{data}/pairs.jsonl"
  tasks = [dict(name=name, steps=1, source=spec, split=f"all[{part}]") for name, part in (("a", ":20"), ("b", "20:"))]
  evals = dict(retrieval=dict(name="retrieval.Retrieval", ks=(1, 5)))
  options = [
    f"--config.stream={tasks}",
    "--config.steps=0",
    "--config.data.source=None",
    f"--config.evaluation={dict(test='all', train='all', evals=evals, batch_size=8)}",
  ]
  assert main(["train", CONFIG, f"--workdir={tmp_path}/stream", *options]) == 0
  known = json.loads((tmp_path / "stream" / "eval" / "continual.json").read_text())["rows"]
  assert list(known) == ["before", "a", "b"] and all(len(row["t2i_r@5"]) == 2 for row in known.values())
  flat = json.loads((tmp_path / "stream" / "eval" / "final.json").read_text())
  assert {key.split("/")[1] for key in flat} == {"i2t_r@1", "i2t_r@5", "t2i_r@1", "t2i_r@5"}
  drop = known["a"]["i2t_r@5"][0] - known["b"]["i2t_r@5"][0]
  assert flat["continual/i2t_r@5/forgetting"] == pytest.approx(drop)
  table = capsys.readouterr().out.partition("t2i_r@5 after")[2]
  assert "chance" in table and f"{known['b']['t2i_chance@5'][1]:.3f}" in table


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
  from ssljax.data.corpus import Text
  from ssljax.errors import UserError
  from ssljax.training.config import Data

  with pytest.raises(UserError, match="expected none for text"):
    Data(batch_size=1, text=Text(tokenizer="bytes", inputs_length=8), captions=Captions(tokenizer="bytes"))
