"""Runs put together: durations in epochs, data and devices that are given."""

import pathlib

import jax
import numpy as np
import pytest

from ssljax.commands.configs import load_config
from ssljax.errors import UserError
from ssljax.planning.stand_in import stand_in
from ssljax.training.feed import Feed
from ssljax.training.run import assemble

CONFIG = str(pathlib.Path(__file__).parents[1] / "tiny_config.py") + ":bare"


def test_a_run_lasts_epochs(tmp_path, monkeypatch):
  monkeypatch.setenv("SSLJAX_TEST_DATA", str(tmp_path))
  np.savez(tmp_path / "pictures.npz", image=np.zeros((50, 20, 20, 3), np.uint8), label=np.zeros(50, int))
  config = load_config(
    CONFIG, [("steps", "4ep"), ("data.split", "all"), ("optimizer.learning_rate.warmup_steps", "1ep")]
  )
  run = assemble(config)
  assert run.job.steps == run.config["steps"] == 13  # 200 examples of 16, rounded up
  assert run.config["optimizer"]["learning_rate"]["warmup_steps"] == 4


def test_tasks_last_steps(monkeypatch):
  monkeypatch.setenv("SSLJAX_TEST_DATA", "/nowhere")
  config = load_config(CONFIG, [("steps", "0"), ("data.source", "None")])
  config["stream"] = [{"name": "a", "steps": "1ep", "source": "npz:a.npz"}]
  with pytest.raises(UserError, match=r"stream\[0\].steps: found '1ep'"):
    assemble(config)


def test_data_and_devices_are_given(monkeypatch):
  monkeypatch.setenv("SSLJAX_TEST_DATA", "/nowhere")
  feed = Feed((None,), stand_in(batch_size=16, image_size=20, text=None, num_tasks=0), 100)
  run = assemble(load_config(CONFIG), devices=jax.devices()[:4], feed=feed)
  assert run.mesh.size == 4 and run.batch["image"].shape == (16, 16, 16, 3)


def test_labels_that_an_objective_wants_are_there_and_not_too_many(tmp_path, monkeypatch):
  monkeypatch.setenv("SSLJAX_TEST_DATA", str(tmp_path))
  config = load_config(CONFIG, [("data.split", "all")])
  encoder = dict(name="vit.ViT", variant="Ti", width=16, depth=1, heads=2, patch=8, image_size=16)
  config["objective"] = dict(name="sla.SLA", encoder=encoder, num_classes=3)
  pictures = np.zeros((20, 20, 20, 3), np.uint8)
  np.savez(tmp_path / "pictures.npz", image=pictures)
  with pytest.raises(UserError, match=r"objective: sla\.SLA reads 'label', but npz:.* has no labels"):
    assemble(config)
  np.savez(tmp_path / "pictures.npz", image=pictures, label=np.arange(20) % 4)
  with pytest.raises(UserError, match=r"objective\.num_classes: found 3, expected at least the 4 of "):
    assemble(config)
  config["objective"]["num_classes"] = 4
  assert assemble(config).like.params["joint"]["fc1"]["kernel"].shape == (16, 16)
