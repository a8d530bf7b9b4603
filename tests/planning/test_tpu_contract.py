"""FSDP on 8 and 64 chips that are not here: what must not grow does not grow."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent
ROWS = 16  # examples a chip: enough that their activations outweigh a layer's parameters
LAYER = 4 * 12 * 256**2  # bytes of the kernels of one block
QUICK = {"JAX_EXEC_TIME_OPTIMIZATION_EFFORT": "-1.0", "JAX_MEMORY_FITTING_EFFORT": "-1.0"}
OPTIONS = (
  "--config.mesh.data=1",
  "--config.mesh.fsdp=-1",
  "--config.objective.encoder.width=256",
  "--config.objective.encoder.remat=full",
  "--config.objective.encoder.drop_path=0.0",
  "--config.objective.decoder_width=128",
)


@pytest.fixture(scope="module")
def plans():
  assert importlib.util.find_spec("libtpu"), 'libtpu is not installed (pip install "ssljax[dev]")'
  command = [sys.executable, str(HERE / "compile_for_tpu.py"), f"{HERE.parent}/tiny_config.py:bare"]
  topologies = [f"v5e:2x4={8 * ROWS}", f"v5e:8x8={64 * ROWS}"]
  paths = os.pathsep.join([str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
  environment = os.environ | QUICK | {"SSLJAX_TEST_DATA": "/nowhere", "PYTHONPATH": paths}
  done = subprocess.run([*command, *topologies, "--", *OPTIONS], env=environment, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr[-2000:]
  return [json.loads(line) for line in done.stdout.splitlines()]


def test_no_activation_changes_hands(plans):
  for plan in plans:
    assert plan["fits"] and plan["device"] == "TPU v5 lite" and plan["unknown_loops"] == 0
    assert "all-to-all" not in plan["collectives"]


def test_temporaries_are_flat_in_the_number_of_chips(plans):
  few, many = (plan["temp_bytes"] for plan in plans)
  # Of 64 small shards the compiler gathers a whole layer's kernels at once, forward and backward; of 8 one by one.
  assert many < 1.1 * few + 2 * LAYER


def test_the_state_is_shared(plans):
  few, many = (sum(plan["state_bytes"].values()) for plan in plans)
  assert many < few / 4
  assert plans[1]["argument_bytes"] < plans[0]["argument_bytes"] / 2  # small leaves are whole, and padded


def test_work_is_shared_and_no_more_than_the_models(plans):
  for plan in plans:
    assert plan["compiled_flops"] * plan["num_chips"] < 1.4 * plan["model_flops"]  # a third is recomputed
  assert plans[0]["compiled_flops"] == pytest.approx(plans[1]["compiled_flops"], rel=0.02)


def test_the_roofline_of_a_known_chip(plans):
  for plan in plans:
    assert plan["roofline_seconds"] == max(plan["roofline"].values()) == plan["roofline"][plan["bound"]]
    assert 0 < plan["mfu"] < 1
