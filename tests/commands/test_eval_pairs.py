"""A run on pairs is measured: features of pictures and captions, retrieval beside chance, zero-shot, the picture."""

import contextlib
import json
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

from ssljax import runtime
from ssljax.checkpoint import Checkpoints
from ssljax.cli import main
from ssljax.commands import final
from ssljax.commands import workdir as workdirs
from ssljax.commands.configs import load_config
from ssljax.errors import UserError
from ssljax.training import run as runs
from ssljax.training import state as states
from ssljax.training.pair_evaluation import PairMeasure, captions_of

HERE = pathlib.Path(__file__).parents[1]
EVALS = {
  "retrieval": {"name": "retrieval.Retrieval", "ks": (1, 5)},
  "zero_shot": {"name": "zero_shot.ZeroShot", "prompts": ("a {}", "one {}")},
  "knn": {"name": "knn.KNN", "k": 3},
}


@pytest.fixture(autouse=True)
def same_devices(monkeypatch):
  monkeypatch.setattr(runtime, "start", lambda **_: None)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
  folder = tmp_path_factory.mktemp("pairs")
  lines = []
  for number in range(60):
    picture = np.random.default_rng(number).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(picture).save(folder / f"{number}.png")
    captions = [f"picture {number}", f"kind {number % 4}"]
    lines.append({"image": f"{number}.png", "captions": captions, "label": f"kind {number % 4}"})
  (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("SSLJAX_TEST_DATA", str(folder))
    config = load_config(f"{HERE}/tiny_pairs_config.py", [])
    yield {**config, "evaluation": {"train": "train", "test": "all[:20]", "batch_size": 8, "evals": EVALS}}


@pytest.fixture(scope="module")
def measured(config):
  run = runs.assemble(config)
  with jax.set_mesh(run.mesh):
    state = states.create(run.init, run.like, 0)
  return run, state, final.measure_of(run)


def test_features_of_pictures_and_of_each_caption_once(measured):
  run, state, measure = measured
  assert isinstance(measure, PairMeasure)
  found = measure.pairs(state)
  texts, pairs = captions_of(measure.test)
  assert len(texts) == 20 + 4 and len(pairs) == 40 and found.captions == tuple(texts)
  assert [texts[text] for image, text in pairs.tolist() if image == 0] == list(measure.test.captions(np.array([0]))[0])
  host = measure.test.read(np.arange(20)).arrays
  ids = run.captioner.encode(texts[:20]).ids
  batch = run.augment.evaluate(host) | {"text": ids}
  direct = run.objective.encode(state.params, state.objective_state, batch)
  np.testing.assert_allclose(found.images, direct["image_features"], atol=1e-5)
  np.testing.assert_allclose(found.texts[:20], direct["text_features"], atol=1e-5)
  np.testing.assert_allclose(found.encode(texts[3:5]), direct["text_features"][3:5], atol=1e-5)
  np.testing.assert_array_equal(found.labels, host["label"])
  assert found.class_names == ("kind 0", "kind 1", "kind 2", "kind 3")


def test_numbers_of_pairs_beside_those_of_features(measured):
  _, state, measure = measured
  scores = measure(state)
  assert {"knn", "zero_shot", "zero_shot_chance", "i2t_r@1", "t2i_chance@5"} <= scores.keys()
  assert scores["zero_shot_chance"] == 0.25
  assert set(measure.raw()) == {"knn"}  # pixels have no captions


def test_eval_writes_the_picture_and_the_table(config, tmp_path, capsys):
  run = runs.assemble(config)
  with contextlib.closing(Checkpoints(tmp_path / "checkpoints")) as store, jax.set_mesh(run.mesh):
    store.save(2, states.create(run.init, run.like, 0), config=run.config)
  workdirs.write_json(tmp_path / "config.json", run.config)
  assert main(["eval", f"--workdir={tmp_path}", "--evals=retrieval"]) == 0
  printed = capsys.readouterr().out
  assert "i → t" in printed and "R@5" in printed and "chance" in printed and "4_retrieval.png" in printed
  with Image.open(tmp_path / "pictures" / "4_retrieval.png") as sheet:
    assert sheet.width > 400 and sheet.height > 1000  # ten captions, five pictures each
  assert "trained/t2i_r@5" in json.loads((tmp_path / "eval" / "2.json").read_text())


def test_held_out_pictures_that_were_trained_on_are_counted(measured, capsys):
  run, _, measure = measured
  final._warn_of_duplicates(run, measure)  # this run trains on all and measures the first twenty
  said = capsys.readouterr().out
  assert "warning: 20 of 20 held-out pictures are in the training set too" in said and "pairs.jsonl:" in said


def test_a_source_without_captions_is_refused(config):
  folder = pathlib.Path(config["data"]["source"].partition(":")[2]).parent
  np.savez(folder / "plain.npz", image=np.zeros((30, 8, 8, 3), np.uint8), label=np.arange(30) % 3)
  section = {**config["evaluation"], "source": f"npz:{folder}/plain.npz"}
  run = runs.assemble({**config, "evaluation": section})
  with pytest.raises(UserError, match=r"evaluation.source: found no captions"):
    final.measure_of(run)
