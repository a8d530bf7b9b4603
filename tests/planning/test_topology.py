"""Names of slices, and what a user can get wrong about them; no compiler is needed."""

import importlib.util

import jax
import pytest

from ssljax.errors import UserError
from ssljax.planning import topology
from ssljax.planning.topology import Topology, parse


def test_names():
  assert parse("v5e:16x16") == Topology(kind="v5e", shape=(16, 16))
  assert parse("v5p:4x4x12", slices=2) == Topology(kind="v5p", shape=(4, 4, 12), slices=2)
  assert parse("h100:4x8").shape == (4, 8) and parse("cpu:8").name == "cpu:8"
  assert all(parse(name).name == name for name in topology.names())


@pytest.mark.parametrize(
  "name", ["v5x:4x4", "v5e", "v5e:", "v5e:4x4x4", "v5p:4x4", "h100:8", "cpu:2x2", "v5e:0x4", "8"]
)
def test_a_name_that_is_none(name):
  with pytest.raises(UserError, match=rf"unknown topology {name} \(.*valid: .*v5e:16x16"):
    parse(name)


def test_the_nearest_name_is_told():
  with pytest.raises(UserError, match="did you mean v5e:16x16"):
    parse("v5e:16x16x")


@pytest.mark.parametrize(("name", "slices"), [("v5e:2x4", 0), ("h100:1x8", 2), ("cpu:8", 2)])
def test_slices(name, slices):
  with pytest.raises(UserError, match=f"--slices: found {slices}"):
    parse(name, slices=slices)


def test_a_missing_compiler_is_named_with_the_command_that_gets_it(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(UserError, match=r'pip install "ssljax\[tpu\]"'):
    _ = parse("v5e:2x4").environment
  with pytest.raises(UserError, match=r'pip install "ssljax\[gpu-plan\]"'):
    _ = parse("h100:1x8").environment


def test_devices_of_the_cpu():
  assert parse("cpu:4").devices() == jax.devices()[:4]
  with pytest.raises(UserError, match="found 8 devices on this CPU, expected 16"):
    parse("cpu:16").devices()


def test_what_jax_is_asked_for():
  ask = topology._arguments
  assert ask(parse("v5p:8x8x8")) == {"platform": "tpu", "topology_name": "v5:8x8x8", "chip_config_name": "megacore"}
  assert ask(parse("v5e:2x4"))["chips_per_host_bounds"] == (2, 4, 1)
  assert ask(parse("v5e:16x16", slices=2)) == {"platform": "tpu", "topology_name": "v5e:16x16", "num_slices": 2}
  gpus = ask(parse("h100:4x8"))
  assert gpus["topology"] == "1x4x8" and 'device_description_str: "NVIDIA H100' in gpus["target_config"]
