"""A method that collapses raises the alarm, the same method in health does not: real training, in small."""

import json

import jax
import numpy as np
import pytest

from ssljax.evaluators.collapse import Alarm, told
from ssljax.training.health import slice_of
from ssljax.training.loop import start, train
from ssljax.training.run import assemble

STEPS = 150


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
  """Smooth coloured fields: waves of a few low frequencies."""
  random = np.random.default_rng(0)
  where = np.linspace(0, 2 * np.pi, 20)
  waves = np.stack([f(k * where) for k in (1, 2, 3) for f in (np.sin, np.cos)])
  weight = random.normal(size=(300, 3, 6, 6)) / np.repeat([1, 2, 3], 2)[:, None]
  fields = np.einsum("ncij,iy,jx->nyxc", weight, waves, waves)
  file = tmp_path_factory.mktemp("alarm") / "fields.npz"
  np.savez(file, image=np.clip(128 + 30 * fields, 0, 255).astype(np.uint8))
  return f"npz:{file}"


def alarms(pictures, folder, name, *, recipe="simclr_cifar", **objective):
  encoder = dict(name="vit.ViT", variant="Ti", width=32, depth=1, heads=2, patch=4, image_size=16, pooling="mean")
  config = dict(
    steps=STEPS,
    data=dict(source=pictures, batch_size=32, image_size=20),
    augment=dict(name="views.Views", recipe=recipe, size=16),
    objective=dict(name=name, encoder=encoder, **objective),
    optimizer=dict(name="adamw", learning_rate=3e-3, weight_decay=0.05),
    checkpoint=dict(every=1000),
    log_every=50,
    health=dict(every=10, examples=64, split="train"),
  )
  run = assemble(config, devices=jax.devices()[:1])
  train(run, start(run, folder), folder, health=slice_of(run))
  rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
  print(name, objective)
  h = [r for r in rows if "health/collapse" in r]
  for key in h[0]:
    if key.endswith(("rankme", "std", "collapse")):
      print("  ", key.ljust(32), " ".join(f"{r[key]:.3g}" for r in h))
  return told(rows, Alarm())


BYOL = dict(projector_hidden=64, projector_out=16, decay=0.9)


def test_byol(pictures, tmp_path):
  assert not alarms(pictures, tmp_path, "byol.BYOL", **BYOL)


def test_byol_without_stop(pictures, tmp_path):
  assert alarms(pictures, tmp_path, "byol.BYOL", **BYOL, stop_gradient="off")


def test_byol_without_predictor(pictures, tmp_path):
  assert alarms(pictures, tmp_path, "byol.BYOL", **BYOL, predictor="none")


def test_mae(pictures, tmp_path):
  assert not alarms(pictures, tmp_path, "mae.MAE", recipe="mae", decoder_width=16, decoder_depth=1, decoder_heads=2)


def test_simclr(pictures, tmp_path):
  assert not alarms(pictures, tmp_path, "simclr.SimCLR", projector_out=16, projector_layers=2)
