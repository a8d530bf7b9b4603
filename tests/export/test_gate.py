"""The gate: what differs is not written, and the layer is named."""

import dataclasses
import json

import numpy as np
import pytest
from peer_cases import HERE, IMAGES, mae, random_arrays, vit
from test_peers import write

from ssljax.export import folder, gate, weights
from ssljax.export.hf_vit import ViTMAEForPreTraining, ViTModel
from ssljax.export.table import Line


@dataclasses.dataclass(frozen=True)
class Swapped(Line):
  """A line of a wrong table: two heads of layer 1 stand in each other's place."""

  def forwards(self, array):
    theirs = super().forwards(array)
    name = next(name for name in theirs if ".1." in name)
    theirs[name] = np.roll(theirs[name], 8, axis=0)  # two heads of width 8
    return theirs


class Broken(ViTModel):
  def __init__(self, part):
    self.part = part

  def lines(self, modules):
    wrong = lambda line: Swapped(*(getattr(line, field.name) for field in dataclasses.fields(line)))
    return [wrong(line) if self.part in line.ours else line for line in super().lines(modules)]


@pytest.mark.parametrize(
  ("part", "layer"),
  [
    ("attn/qkv/kernel", "encoder.layer.1.attention.attention.query"),
    ("attn/proj/kernel", "encoder.layer.1.attention.output.dense"),
    ("mlp/fc1/kernel", "encoder.layer.1.intermediate.dense"),
  ],
)
def test_two_heads_swapped_are_refused_and_the_layer_is_named(part, layer, tmp_path):
  modules = vit()
  with pytest.raises(
    folder.Refused, match=f"the first layer that differs is {layer} .*nothing was written but"
  ) as said:
    write(tmp_path / "out", (Broken(part), modules, IMAGES), random_arrays(modules))
  assert "\n" not in str(said.value)
  assert [path.name for path in tmp_path.iterdir()] == ["out.refused.json"]
  report = json.loads((tmp_path / "out.refused.json").read_text())
  assert report["layer"] == layer and report["differences"]["tokens"] > 1e-4 and report["tolerance"] == 1e-4


def test_weights_that_do_not_arrive_are_named(tmp_path, monkeypatch):
  """What the other library does to a file while it loads it counts as well."""
  real = weights.write

  def spoiled(file, arrays):
    name = "vit.encoder.layer.0.intermediate.dense.weight"
    real(file, {**arrays, name: arrays[name] * 1.01})

  monkeypatch.setattr(weights, "write", spoiled)
  modules = mae()
  with pytest.raises(folder.Refused, match=r"differs is vit\.encoder\.layer\.0\.intermediate\.dense"):
    write(tmp_path / "out", (ViTMAEForPreTraining(), modules, IMAGES), random_arrays(modules))


def test_not_a_number_is_a_difference():
  assert gate._difference(np.array([1.0, np.nan]), np.array([1.0, 2.0])) == float("inf")
  assert gate._difference(np.zeros(3), np.zeros(2)) == float("inf")
  assert gate._difference(np.array([100.0]), np.array([101.0])) == pytest.approx(1 / 101)
  assert gate._difference(np.array([0.1]), np.array([0.2])) == pytest.approx(0.1)
  assert not gate.Comparison({"a": 2e-4}).passes and gate.Comparison({"a": 9e-5, "b": 0.0}).passes


def test_an_export_that_is_killed_leaves_nothing_that_looks_whole(tmp_path, monkeypatch):
  case = HERE["ViTModel-cls"]
  arrays = random_arrays(case[1])
  (tmp_path / ".out.partial").mkdir()  # of one that was killed by -9
  (tmp_path / ".out.partial" / "junk").write_text("junk")
  with monkeypatch.context() as patch:
    patch.setattr(folder, "compare", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
      write(tmp_path / "out", case, arrays)
  assert not list(tmp_path.iterdir())
  write(tmp_path / "out", case, arrays)
  assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
    "README.md", "config.json", "model.safetensors", "preprocessor_config.json",
  ]  # fmt: skip
