"""Fine-tuning after pretraining: what is carried over, which labels are used, the table, and what is refused."""

import copy
import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax import runtime, tree
from ssljax.augment.identity import Identity
from ssljax.augment.views import Views
from ssljax.build import build
from ssljax.cli import main
from ssljax.commands import evaluate, final
from ssljax.commands import finetune as finetune_command
from ssljax.commands import workdir as workdirs
from ssljax.commands.configs import load_config
from ssljax.data.decode import CorruptRecord
from ssljax.data.npz import ArraySource
from ssljax.data.source import open_source
from ssljax.errors import UserError
from ssljax.evaluators.finetune import Distillation, FineTune
from ssljax.models.dual import DualEncoder, Tower
from ssljax.models.text_tower import TextTower
from ssljax.models.vit import ViT
from ssljax.objectives.classify import Classifier
from ssljax.objectives.clip import CLIP
from ssljax.training import finetune, transplant
from ssljax.training import state as states
from ssljax.training.finetune import fine_tune, labels_of, single_view
from ssljax.training.inherit import inherit
from ssljax.training.programs import CompiledStep, trace_step
from ssljax.training.run import assemble
from ssljax.transforms import ema_params
from ssljax.types import Part, TrainState

HERE = pathlib.Path(__file__).parents[1]
CONFIG = f"{HERE}/tiny_config.py"
SMALL = ViT(width=8, depth=1, heads=2, patch=8, image_size=16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Pictures whose class is their colour; a run of SimCLR with two steps behind it; its config has one evaluator."""
  place = tmp_path_factory.mktemp("finetune")
  draw = np.random.default_rng(0)
  labels = np.arange(120) % 3
  pictures = draw.integers(0, 60, (120, 20, 20, 3))
  pictures[np.arange(120), :, :, labels] += 150
  np.savez(place / "pictures.npz", image=pictures.astype(np.uint8), label=labels)
  np.savez(place / "plain.npz", image=pictures.astype(np.uint8))
  return place


@pytest.fixture(scope="module")
def trained(folder):
  """A run on one device, a state that is not its own first one, and its measure."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("SSLJAX_TEST_DATA", str(folder))
    config = load_config(f"{CONFIG}:simclr", [("objective.encoder.depth", "1")])
    config["evaluation"] = dict(batch_size=8, evals=dict(finetune=dict(name="finetune.FineTune")))
    run = assemble(config, devices=jax.devices()[:1])
  with jax.set_mesh(run.mesh):
    yield run, states.create(run.init, run.like, 99), final.measure_of(run)


@pytest.fixture(scope="module")
def scores(trained):
  """Two shares with a student, and what was said."""
  distill = Distillation(encoder=SMALL, steps=3, temperature=2.0)
  settings = FineTune(
    shares=(0.01, 1.0), steps=10, batch_size=16, learning_rate=1e-2, projector_layers=1, distill=distill
  )
  said = []
  quick = lambda run: (CompiledStep(trace_step(run).lower().compile(), 0),)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(finetune, "compile_steps", quick)
    return fine_tune(*trained[::2], trained[1], settings, say=said.append), said


def test_every_share_has_its_rows(scores, trained):
  found, said = scores
  rows = ("examples", "scratch", "pretrained", "distilled")
  assert list(found) == [f"{share}/{row}" for share in ("0.01", "1") for row in rows]
  assert found["0.01/examples"] == 3 and found["1/examples"] == len(trained[2].train)
  assert "0.01 of the labels is less than one a class: 3 are used, one a class" in said
  assert found["1/pretrained"] > 0.9  # a class is a colour; chance is 1/3
  assert said[-1].startswith("finetune 1/distilled: step 3/3  loss ")


def test_what_trains_gives_no_numbers_of_features(trained, monkeypatch):
  _, state, measure = trained
  assert measure.raw() == {}
  monkeypatch.setattr(measure, "features", lambda state: pytest.fail("computed for nobody"))
  assert measure(state) == {}


def test_each_training_begins_where_it_should(trained, monkeypatch):
  """A step that changes nothing: what goes in is what each training is called with."""
  run, state, measure = trained
  seen = []

  def step(state, batch):
    seen.append((state, set(np.asarray(batch["label"]).tolist())))
    return state, {"train/skipped": 0.0, "train/loss": 0.0}

  monkeypatch.setattr(finetune, "compile_steps", lambda run: (CompiledStep(step, 0),))
  monkeypatch.setattr(finetune._FineTuning, "_accuracy", lambda *_: 0.5)
  settings = FineTune(shares=(1.0,), steps=1, batch_size=16, seed=4, distill=Distillation(encoder=SMALL))
  fine_tune(run, measure, state, settings, say=lambda line: None)
  (scratch, _), (pretrained, _), (student, labels) = seen
  same = lambda a, b: jax.tree.map(np.testing.assert_array_equal, a, b)
  first = states.create(run.init, run.like, run.job.seed)
  same(scratch.params["encoder"], first.params["encoder"])
  same(pretrained.params["encoder"], ema_params(state.opt_state)["encoder"])
  same(scratch.params["head"], pretrained.params["head"])
  same(student.objective_state["teacher"], pretrained.params)
  assert student.params["encoder"]["norm"]["scale"].shape == (8,) and labels == {0, 1, 2}


def test_networks_are_copied_with_their_statistics(trained):
  run, state, _ = trained
  norm = state.objective_state["projector"]["bn1"]
  norm = {"mean": norm["mean"] + 1, "var": norm["var"] + 2}
  projector = {**state.objective_state["projector"], "bn1": norm}
  state = state.replace(objective_state={**state.objective_state, "projector": projector})
  parts = transplant.networks(run.objective, part="encoder", projector_layers=1)
  assert (parts["projector"].module.layers, parts["projector"].module.out) == (1, 16)
  classifier = Classifier(encoder=parts["encoder"].module, projector=parts["projector"].module, num_classes=3)
  init = lambda key: classifier.init(key, {"image": jnp.zeros((2, 16, 16, 3))})
  params, rest = jax.jit(init)(jax.random.key(5))
  fresh = TrainState(jnp.int32(0), params, {}, rest, jax.random.key(0))
  got = transplant.placed(fresh, transplant.weights(parts, state))
  average = ema_params(state.opt_state)
  jax.tree.map(np.testing.assert_array_equal, got.params["encoder"], average["encoder"])
  assert set(got.params["projector"]) == {"fc1", "bn1"} and got.params["head"] is fresh.params["head"]
  jax.tree.map(np.testing.assert_array_equal, got.objective_state["projector"], {"bn1": norm})
  jax.tree.map(lambda leaf: leaf.delete(), got.params)  # as the step does; the pretrained weights stay
  assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(average))
  with pytest.raises(UserError, match=r"finetune: encoder/blocks/\S+ of the run is not there or of another shape"):
    transplant.placed(fresh, {"encoder": ({}, {})})


def test_training_a_classifier_goes_on_from_a_pretrained_run(trained):
  """The recipe of docs/finetune.md for `ssljax train --from`."""
  run, state, _ = trained
  projector = dict(name="heads.MLPHead", layers=1, out=16, last_norm="affine")
  objective = dict(
    name="classify.Classifier", encoder=run.config["objective"]["encoder"], projector=projector, num_classes=3
  )
  rules = [["^params/head/", "reinit"], ["^opt_state/", "reinit"]]
  changed = {"objective": objective, "init": rules, "augment": single_view(run.augment, recipe="mae")}
  made = assemble({**run.config, **changed}, devices=jax.devices()[:1])
  said = []
  got = inherit(made, dict(tree.named_leaves(state)), place="there", say=said.append)
  known = {"encoder": state.params["encoder"], "projector": {k: state.params["projector"][k] for k in ("fc1", "bn1")}}
  jax.tree.map(np.testing.assert_array_equal, {name: got.params[name] for name in known}, known)
  assert "made anew (params/head/bias, params/head/kernel, opt_state/" in said[0]
  assert "left behind (objective_state/projector/bn2/mean" in said[0]


def test_the_teachers_parameters_are_used_where_there_is_one():
  state = TrainState(0, {"a": {"w": 1}}, {}, {"mean": {"a": {"w": 2}}, "stats": {"s": 3}}, None)
  parts = {"encoder": Part(SMALL, "a", "stats", "mean/a"), "projector": Part(SMALL, "a", None)}
  found = transplant.weights(parts, state)
  assert found == {"encoder": ({"w": 2}, {"s": 3}), "projector": ({"w": 1}, {})}


def test_an_encoder_within_a_part_lies_where_its_fields_say():
  text = Tower(TextTower(vocab_size=9, length=4, width=8, depth=1, heads=2), width=8)
  clip = CLIP(model=DualEncoder(image=Tower(SMALL, width=8), text=text))
  found = transplant.networks(clip, part="model/image/encoder", projector_layers=0)["encoder"]
  assert found.module == SMALL and (found.params, found.state) == ("image/encoder", "image/encoder")
  for path, message in {
    "encoder": "no part encoder",
    "model": "model is DualEncoder",
    "model/x": "is NoneType",
  }.items():
    with pytest.raises(UserError, match=message):
      transplant.networks(clip, part=path, projector_layers=0)
  with pytest.raises(UserError, match="projector_layers: found 1, expected 0: the objective has no projector"):
    transplant.networks(clip, part="model/image/encoder", projector_layers=1)


def test_the_decay_by_layer_is_for_the_pretrained_network_alone(trained, monkeypatch):
  monkeypatch.setattr(finetune, "compile_steps", lambda run: (None,))
  made = finetune._FineTuning(*trained[::2], FineTune(layer_decay=0.7, steps=50, seed=5), print)._trainers
  rates = {name: trainer.run.config["optimizer"].get("layer_decay") for name, trainer in made.items()}
  assert rates == {"scratch": None, "pretrained": 0.7}
  run = made["scratch"].run
  assert (run.job.steps, run.job.seed, run.job.data.batch_size, run.mesh.size) == (50, 5, 128, 1)
  assert float(run.optimizer.learning_rate(5)) == pytest.approx(1e-3) and run.objective.smoothing == 0.1


def test_a_training_that_diverges_says_so(trained, monkeypatch):
  step = CompiledStep(lambda state, batch: (state, {"train/skipped": 1.0, "train/loss": 0.0}), 0)
  monkeypatch.setattr(finetune, "compile_steps", lambda run: (step,))
  with pytest.raises(UserError, match="finetune 1/scratch: 10 steps in a row were not finite, the last at step 10"):
    fine_tune(*trained[::2], trained[1], FineTune(shares=(1.0,), batch_size=16), say=lambda line: None)


def test_one_view_is_as_large_and_as_bright_as_the_runs():
  made = single_view(Views(recipe="byol", size=24, strength=0.5), recipe="mae")
  assert made == dict(
    name="views.Views", recipe="mae", size=24, filter="bicubic", normalize="imagenet", dtype="float32"
  )
  assert single_view(Views(recipe="simclr", size=24, normalize="clip"), recipe="mae")["normalize"] == "clip"
  with pytest.raises(UserError, match=r"finetune\.augment: missing, expected a section beside the run's own Identity"):
    single_view(Identity(), recipe="mae")


class Broken(ArraySource):
  """Record 2 cannot be read."""

  image_size, num_classes = 4, 5
  arrays = (np.zeros((1500, 4, 4, 3), np.uint8), np.arange(1500, dtype=np.int32) % 5)

  def fetch(self, rows):
    items, labels = super().fetch(rows)
    return [CorruptRecord("torn") if row == 2 else item for row, item in zip(rows, items, strict=True)], labels

  def name(self, row):
    return str(row)


def test_labels_are_read_in_order_and_those_of_broken_records_left_out():
  expected = np.arange(1500) % 5
  expected[2] = -1
  np.testing.assert_array_equal(labels_of(Broken()), expected)


def test_pictures_without_labels_are_refused(trained, folder):
  run, state, measure = trained
  measure = copy.copy(measure)
  measure.train = open_source(f"npz:{folder}/plain.npz", image_size=20)
  with pytest.raises(UserError, match=r"evaluation.source: npz:\S+ has no labels"):
    fine_tune(run, measure, state, FineTune())


def test_eval_trains_what_is_asked_for_by_name(trained, folder, tmp_path, capsys, monkeypatch):
  """From the command line on: the run is restored, the numbers are printed and stored; merging is refused."""
  run, state, measure = trained
  workdirs.write_json(tmp_path / "config.json", dict(run.config) | {"evaluation": {"evals": {}}})
  asked = []

  def restored(folder, step, section, flag):
    asked.append(section)
    measure.evaluators = {name: build(part, "evaluators", where=name) for name, part in section["evals"].items()}
    return dataclasses.replace(run), 7, state

  numbers = {"0.01/examples": 3, "0.01/scratch": 0.25, "0.01/pretrained": 0.5}
  monkeypatch.setattr(evaluate, "restored", restored)
  monkeypatch.setattr(runtime, "start", lambda **_: None)
  monkeypatch.setattr(final, "measure_of", lambda run: measure)
  monkeypatch.setattr(finetune_command, "fine_tune", lambda *_, **__: numbers)
  assert main(["eval", f"--workdir={tmp_path}", "--evals=finetune"]) == 0
  printed = capsys.readouterr().out
  assert "from scratch" in printed and "1 % (3)" in printed and "0.500" in printed and "distilled" not in printed
  stored = json.loads((tmp_path / "eval" / "7_finetune.json").read_text())
  assert stored == {f"finetune/{key}": value for key, value in numbers.items()}
  assert not (tmp_path / "eval" / "7.json").exists()
  file = f"--config={tmp_path}/config.json"
  assert main(["eval", f"--workdir={tmp_path}", "--evals=finetune", file, "--config.evaluation.batch_size=4"]) == 0
  assert asked[0] == {"evals": {"finetune": {"name": "finetune.FineTune"}}} and asked[1]["batch_size"] == 4
  assert main(["eval", f"--workdir={tmp_path}", f"--merge={tmp_path}", "--evals=finetune"]) == 2
  assert "--merge: found finetune, expected evaluators of features" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (["--evals=finetun"], "nothing is called finetun (did you mean finetune"),
    (["--config.evaluation.batch_size=4"], "--config.evaluation.batch_size: expected --config=FILE"),
    ([], "the run's config has no evaluation"),
  ],
)
def test_what_eval_does_not_know(options, message, tmp_path, capsys):
  workdirs.write_json(tmp_path / "config.json", {"evaluation": None})
  assert main(["eval", f"--workdir={tmp_path}", *options]) == 2
  assert message in capsys.readouterr().err


def test_names_of_evaluators_the_config_lacks():
  evals = evaluate._chosen({"batch_size": 3, "evals": {"knn": {"name": "knn.KNN", "k": 2}}}, "knn,rankme,linear_probe")
  assert evals == {
    "batch_size": 3,
    "evals": {
      "knn": {"name": "knn.KNN", "k": 2},
      "rankme": {"name": "rankme.RankMe"},
      "linear_probe": {"name": "linear_probe.LinearProbe"},
    },
  }
  assert evaluate._chosen(None, "sgd_probe.SGDProbe")["evals"] == {"sgd_probe.SGDProbe": {"name": "sgd_probe.SGDProbe"}}
