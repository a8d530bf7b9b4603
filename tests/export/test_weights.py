import json
import pickle

import ml_dtypes
import numpy as np
import pytest

from ssljax.errors import UserError
from ssljax.export import weights


def test_floats_come_as_float32_and_bits_survive(tmp_path):
  arrays = {"a": np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32), "n": np.array([3], np.int64)}
  weights.write(tmp_path / "model.safetensors", arrays)
  for place in (tmp_path, tmp_path / "model.safetensors"):
    found = weights.read(place)
    assert all(found[name].tobytes() == array.tobytes() for name, array in arrays.items())
  weights.write(tmp_path / "model.safetensors", {"half": arrays["a"].astype(ml_dtypes.bfloat16)})
  half = weights.read(tmp_path)["half"]
  assert half.dtype == np.float32
  np.testing.assert_array_equal(half, arrays["a"].astype(ml_dtypes.bfloat16).astype(np.float32))


def test_a_model_in_several_files(tmp_path):
  for number in range(2):
    weights.write(tmp_path / f"part{number}.safetensors", {f"w{number}": np.full(2, number, np.float32)})
  index = {"weight_map": {"w0": "part0.safetensors", "w1": "part1.safetensors"}}
  (tmp_path / weights.INDEX).write_text(json.dumps(index))
  assert {name: array.tolist() for name, array in weights.read(tmp_path).items()} == {"w0": [0, 0], "w1": [1, 1]}
  for wrong, message in (("../part0.safetensors", "expected files of its own folder"), (3, "names 3")):
    (tmp_path / weights.INDEX).write_text(json.dumps({"weight_map": {"w0": wrong}}))
    with pytest.raises(UserError, match=message):
      weights.read(tmp_path)
  (tmp_path / weights.INDEX).write_text("[]")
  with pytest.raises(UserError, match="is no index of weights"):
    weights.read(tmp_path)


@pytest.mark.parametrize("wrapped", ["", "model", "state_dict"])
def test_pickles_of_tensors_alone(wrapped, tmp_path):
  import torch

  state = {"a.weight": torch.ones(2, dtype=torch.bfloat16), "count": torch.tensor(3)}
  torch.save({wrapped: state, "epoch": 7} if wrapped else state, tmp_path / "released.pth")
  found = weights.read(tmp_path / "released.pth")
  assert found["a.weight"].dtype == np.float32 and found["count"] == 3 and set(found) == {"a.weight", "count"}


class Evil:
  def __reduce__(self):
    return (print, ("gotcha",))


def test_nothing_else_is_unpickled(tmp_path, capsys):
  import torch

  torch.save({"a": Evil()}, tmp_path / "evil.pth")
  (tmp_path / "plain.bin").write_bytes(pickle.dumps(Evil()))
  torch.save({"a": [1, 2]}, tmp_path / "lists.pt")
  (tmp_path / "cut.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
  (tmp_path / "huge.safetensors").write_bytes(b"\xff" * 16)
  for name in ("evil.pth", "plain.bin", "lists.pt", "cut.safetensors", "huge.safetensors"):
    with pytest.raises(UserError, match="cannot be read as weights") as said:
      weights.read(tmp_path / name)
    assert "\n" not in str(said.value)
  assert "gotcha" not in capsys.readouterr().out
  with pytest.raises(UserError, match=r"no weights in .*, expected a folder with model.safetensors or"):
    weights.read(tmp_path)
