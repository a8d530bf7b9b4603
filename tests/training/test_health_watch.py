"""What a run says of its health: the same when it is resumed, nothing that changes it, and an end where it is asked."""

import json
import pathlib

import numpy as np
import pytest

from ssljax import runtime
from ssljax.cli import main
from ssljax.commands.configs import load_config
from ssljax.errors import UserError
from ssljax.evaluators.collapse import Alarm, told
from ssljax.evaluators.health import measures
from ssljax.training.health import slice_of
from ssljax.training.loop import start, train
from ssljax.training.run import assemble
from ssljax.training.watch import Collapsed

HERE = pathlib.Path(__file__).parents[1]
CONFIG = str(HERE / "tiny_config.py") + ":bare"


@pytest.fixture(autouse=True)
def data(tmp_path_factory, monkeypatch):
  folder = tmp_path_factory.getbasetemp() / "health_pictures"
  folder.mkdir(exist_ok=True)
  pictures = np.random.default_rng(0).integers(0, 256, (50, 20, 24, 3), dtype=np.uint8)
  np.savez(folder / "pictures.npz", image=pictures)
  monkeypatch.setenv("SSLJAX_TEST_DATA", str(folder))
  monkeypatch.syspath_prepend(str(HERE))


def made(pull=1.0, *, steps=8, **health):
  config = load_config(CONFIG, [("steps", str(steps)), ("checkpoint.every", "3")])
  config["objective"] = {"name": "collapsing:Collapsing", "pull": pull}
  config["optimizer"] = {"name": "sgd", "learning_rate": 0.5, "momentum": 0.0}
  config["health"] = {"every": 2, "examples": 20, "split": "train", **health} if health.get("every", 1) else None
  return assemble(config)


def trained(run, folder):
  folder.mkdir(exist_ok=True)
  state = train(run, start(run, folder), folder, health=slice_of(run))
  rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
  steps = [{k: v for k, v in row.items() if "_second" not in k and "wait" not in k} for row in rows]
  return state, [r for r in steps if "train/loss" in r], [r for r in steps if "health/collapse" in r]


def test_a_run_that_collapses_says_so_once_and_is_no_other_run(tmp_path, capsys):
  state, curve, health = trained(made(), tmp_path / "watched")
  said = [line for line in capsys.readouterr().err.splitlines() if "collapse" in line]
  assert [row["step"] for row in health] == [0, 2, 4, 6, 8]
  assert [row["health/collapse"] for row in health] == [0, 0, 0, 1, 1]  # low at 4 and, as patience wants, at 6
  best, last = health[0]["health/embedding_feature_std"], health[3]["health/embedding_feature_std"]
  share = f"{100 * last / best:.0f} % of its best ({best:.3g} at step 0)"
  line = f"step 6: collapse: embedding feature std {last:.3g}, {share}"
  assert said == [line] and told(health, Alarm()) == {6: line}

  unwatched, other, none = trained(made(every=0), tmp_path / "unwatched")
  assert other == curve and not none
  np.testing.assert_array_equal(unwatched.params["w"], state.params["w"])


def test_resumed_it_says_the_same(tmp_path, capsys):
  _, curve, health = trained(made(), tmp_path / "whole")
  whole = [line for line in capsys.readouterr().err.splitlines() if "collapse" in line]
  trained(made(steps=5), tmp_path / "parts")
  lines = (tmp_path / "parts" / "metrics.jsonl").read_text()
  later = {"step": 6, "health/embedding_rankme": 99.0, "health/embedding_feature_std": 99.0, "health/collapse": 0.0}
  (tmp_path / "parts" / "metrics.jsonl").write_text(lines + json.dumps(later) + "\n")  # of a run that was killed
  assert trained(made(), tmp_path / "parts")[1:] == (curve, health)
  assert [line for line in capsys.readouterr().err.splitlines() if "collapse" in line] == whole


def test_a_healthy_run_never_says_it(tmp_path):
  _, _, health = trained(made(pull=0.0), tmp_path / "healthy")
  measured = [{key: value for key, value in row.items() if key != "step"} for row in health]
  assert all(row == measured[0] for row in measured) and measured[0]["health/collapse"] == 0


def test_it_stops_where_it_is_asked_to_and_does_not_go_on(tmp_path):
  run = made(alarm={"action": "stop", "patience": 1})
  with pytest.raises(Collapsed, match="stopped at step 4 because it collapsed"):
    trained(run, tmp_path / "stopped")
  assert (tmp_path / "stopped" / "checkpoints" / "4").is_dir()
  with pytest.raises(Collapsed, match="collapsed by step 4: nothing more is trained"):
    trained(run, tmp_path / "stopped")
  state, _, health = trained(made(), tmp_path / "stopped")  # without the flag it does
  assert int(state.step) == 8 and [row["step"] for row in health] == [0, 2, 4, 6, 8]


def test_the_slice_is_two_views_of_pictures_spread_over_the_split(tmp_path):
  run = made(examples=20)
  held = slice_of(run)
  state = start(run, tmp_path)
  assert held._arrays["image"].shape[0] == 20
  views = held._encode(state)["embedding"]
  assert views.shape == (20, 2, 9) and not np.allclose(views[:, 0], views[:, 1])
  expected = measures(views[:, 0], views[:, 1])
  found = held(state)
  assert found == {f"embedding_{key}": pytest.approx(float(value)) for key, value in expected.items()}
  assert found == held(state)


@pytest.mark.parametrize(
  "health, words",
  [
    ({"split": "tset"}, ("tset", "did you mean test?")),
    ({"alarm": {"rankme": 1.5}}, ("health.alarm: rankme: found 1.5", "below 1")),
    ({"alarm": {"patience": 0}}, ("health.alarm: patience: found 0",)),
    ({"examples": 1}, ("health.examples: found 1",)),
    ({"every": -1}, ("health.every: found -1",)),
  ],
)
def test_mistakes_are_named(health, words):
  with pytest.raises(UserError) as error:
    slice_of(made(**health))
  assert all(word in str(error.value) for word in words)


def test_an_objective_without_these_features_is_named(tmp_path):
  run = made(features=("embeding",))
  with pytest.raises(UserError, match=r"health.features: unknown output embeding \(did you mean embedding\?"):
    trained(run, tmp_path / "unknown")


def test_the_flag_ends_the_run_with_a_report(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(runtime, "start", lambda **_: None)
  file, workdir = tmp_path / "config.json", tmp_path / "run"
  file.write_text(json.dumps(made(alarm={"patience": 1}).config))
  command = ["train", f"--config={file}", f"--workdir={workdir}"]
  assert main([*command, "--stop-on-collapse"]) == 1
  said = capsys.readouterr().err
  assert "step 4: collapse: embedding" in said and "error: stopped at step 4 because it collapsed" in said
  page = (workdir / "report.html").read_text()
  assert '<p class="alarm">step 4: collapse: embedding' in page
  assert main(command) == 0 and (workdir / "checkpoints" / "8").is_dir()  # the flag is no other run


def test_the_flag_needs_an_alarm(tmp_path, capsys):
  assert main(["train", f"--config={CONFIG}", f"--workdir={tmp_path}", "--stop-on-collapse"]) == 2
  assert "--stop-on-collapse: the config has no alarm" in capsys.readouterr().err
