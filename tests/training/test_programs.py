"""An augmentation that changes from stage to stage: a program each, the right one at each step, resumed or not."""

import json
import pathlib

import numpy as np
import pytest

from ssljax.commands.configs import load_config
from ssljax.errors import UserError
from ssljax.training.loop import start, train
from ssljax.training.programs import compile_steps, program_of
from ssljax.training.run import assemble

HERE = pathlib.Path(__file__).parents[1]
STAGES = [{"until": 2, "size": 8}, {"until": 5, "size": 16, "bandwidth": 12, "crop_scale": [0.5, 1.0]}]


@pytest.fixture(autouse=True)
def data(tmp_path_factory, monkeypatch):
  folder = tmp_path_factory.getbasetemp() / "staged_pictures"
  folder.mkdir(exist_ok=True)
  np.savez(folder / "pictures.npz", image=np.random.default_rng(0).integers(0, 256, (50, 20, 24, 3), dtype=np.uint8))
  monkeypatch.setenv("SSLJAX_TEST_DATA", str(folder))
  monkeypatch.syspath_prepend(str(HERE))


def made(stages=STAGES, *, steps=7, **objective):
  config = load_config(f"{HERE}/tiny_config.py:bare", [("steps", str(steps))])
  config["objective"] = {"name": "sized:Sized", **objective}
  config["optimizer"] = {"name": "sgd", "learning_rate": 0.1, "momentum": 0.0}
  config["augment"] = {"name": "stages.Stages", "views": {"recipe": "mae", "size": 16}, "stages": stages}
  return assemble(config)


def trained(run, folder):
  folder.mkdir(exist_ok=True)
  state = train(run, start(run, folder), folder)
  rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
  return np.asarray(state.params["w"]), [(row["step"], row["side"], row["train/loss"]) for row in rows]


def test_each_step_has_the_views_of_its_stage_and_a_resumed_run_is_the_same(tmp_path):
  w, curve = trained(made(), tmp_path / "whole")
  assert [side for _, side, _ in curve] == [8, 8, 12, 12, 12, 16, 16]
  for steps in (3, 7):
    other, parts = trained(made(steps=steps), tmp_path / "parts")
  assert parts == curve
  np.testing.assert_array_equal(other, w)


def test_evaluation_and_init_see_the_last_views():
  run = made()
  assert run.augment.size == 16 and run.augment.bandwidth is None and run.batch["image"].shape == (16, 16, 16, 3)


def test_what_is_compiled_is_what_is_ahead():
  programs = compile_steps(made(), begin=2)
  assert [program.until for program in programs] == [5, None]
  assert program_of(programs, 4) is programs[0] and program_of(programs, 5) is programs[1]
  assert [program.until for program in compile_steps(made(steps=2))] == [2]


def test_stages_last_durations():
  run = made([{"until": "1ep", "size": 8}])
  assert run.stages[0][0] == -(-run.stream.epoch_size // 16) and run.config["augment"]["stages"][0]["until"] > 1


def test_a_stage_the_objective_cannot_take_is_named():
  with pytest.raises(UserError, match=r"augment.stages\[0\]: image_size: 12 pixels, expected a multiple of patch=8"):
    made([{"until": 2, "bandwidth": 12}], patch=8)
