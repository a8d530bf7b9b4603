"""Real training in small: BYOL that collapses raises the alarm, BYOL in health does not."""

import json

import jax
import numpy as np
import pytest

from ssljax.training.health import slice_of
from ssljax.training.loop import start, train
from ssljax.training.run import assemble
from ssljax.training.watch import Collapsed

ENCODER = dict(name="vit.ViT", variant="Ti", width=32, depth=1, heads=2, patch=4, image_size=16, pooling="mean")


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


def trained(pictures, folder, **objective):
  """The lines of health of 100 steps, which end where the alarm is raised."""
  config = dict(
    steps=100,
    data=dict(source=pictures, batch_size=32, image_size=20),
    augment=dict(name="views.Views", recipe="simclr_cifar", size=16),
    objective=dict(name="byol.BYOL", encoder=ENCODER, projector_hidden=64, projector_out=16, decay=0.9, **objective),
    optimizer=dict(name="adamw", learning_rate=3e-3, weight_decay=0.05),
    checkpoint=dict(every=1000),
    health=dict(every=10, examples=64, split="train", alarm=dict(action="stop")),
  )
  run = assemble(config, devices=jax.devices()[:1])
  state = start(run, folder)
  try:
    train(run, state, folder, health=slice_of(run))
  finally:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    (folder / "health.json").write_text(json.dumps([row for row in rows if "health/collapse" in row]))


@pytest.mark.parametrize("without", [{"predictor": "none"}, {"stop_gradient": "off"}], ids=("predictor", "stop"))
def test_byol_without_what_keeps_it_up_raises_the_alarm(without, pictures, tmp_path, capsys):
  with pytest.raises(Collapsed):
    trained(pictures, tmp_path, **without)
  assert ": collapse: projection feature std" in capsys.readouterr().err
  first, *_, last = json.loads((tmp_path / "health.json").read_text())
  assert (
    last["health/embedding_feature_std"] > first["health/embedding_feature_std"]
  )  # the encoder alone would not tell


def test_byol_in_health_does_not(pictures, tmp_path):
  trained(pictures, tmp_path)
  assert all(row["health/collapse"] == 0 for row in json.loads((tmp_path / "health.json").read_text()))
