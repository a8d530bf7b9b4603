"""Fine-tuning after pretraining: what is carried over, which labels are used, the table, and what is refused."""

import json
import pathlib

import jax
import numpy as np
import pytest

from ssljax.commands import final
from ssljax.commands.configs import load_config
from ssljax.evaluators.finetune import Distillation, FineTune
from ssljax.models.vit import ViT
from ssljax.training import state as states
from ssljax.training.finetune import fine_tune
from ssljax.training.loop import train
from ssljax.training.run import assemble

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
  """The run, its state, and its measure."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("SSLJAX_TEST_DATA", str(folder))
    config = load_config(f"{CONFIG}:simclr", [("steps", "2"), ("objective.encoder.depth", "1")])
    config["evaluation"] = dict(batch_size=8, evals=dict(knn=dict(name="knn.KNN", k=5)))
    run = assemble(config)
    state = train(run, states.create(run.init, run.like, 0), folder / "run")
  (folder / "run" / "config.json").write_text(json.dumps(run.config))
  with jax.set_mesh(run.mesh):
    yield run, state, final.measure_of(run)


@pytest.fixture(scope="module")
def scores(trained):
  """Two shares, with a student; what was said."""
  run, state, measure = trained
  distill = Distillation(encoder=SMALL, steps=3, temperature=2.0)
  settings = FineTune(
    shares=(0.01, 1.0), steps=12, batch_size=16, learning_rate=1e-2, projector_layers=1, distill=distill
  )
  said = []
  return fine_tune(run, measure, state, settings, say=said.append), said


def test_every_share_has_its_rows(scores, trained):
  found, said = scores
  count = len(trained[2].train)
  assert found.keys() == {
    f"{share}/{row}" for share in ("0.01", "1") for row in ("examples", "scratch", "pretrained", "distilled")
  }
  assert found["0.01/examples"] == 3 and found["1/examples"] == count
  assert "0.01 of the labels is less than one a class: 3 are used, one a class" in said
  assert found["1/pretrained"] > 0.9  # the colour is all there is to see, chance is 1/3
  assert "finetune 1/distilled: step 3/3" in said[-1]
