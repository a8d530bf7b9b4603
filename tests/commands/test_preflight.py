"""What is found before a run is sent away."""

import json
import pathlib
import types

import numpy as np
import pytest

from ssljax import runtime
from ssljax.cli import main
from ssljax.commands import preflight

CONFIG = pathlib.Path(__file__).parents[1] / "tiny_config.py"


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
  """Returns (exit code, lines) of preflight with some flags."""
  monkeypatch.setattr(runtime, "start", lambda **_: None)
  monkeypatch.setenv("SSLJAX_TEST_DATA", str(tmp_path))
  np.savez(tmp_path / "pictures.npz", image=np.zeros((50, 20, 24, 3), np.uint8), label=np.arange(50) % 5)

  def call(*flags):
    code = main(["preflight", f"--config={CONFIG}", f"--workdir={tmp_path}/run", *flags])
    return code, {line.split()[1]: line for line in capsys.readouterr().out.splitlines()}

  return call


def test_nothing_stands_in_the_way(check):
  code, lines = check("--config.mesh.fsdp=256")  # the mesh of another machine
  assert code == 0 and list(lines) == ["config", "workdir", "data", "resume"]
  assert "11,808 parameters" in lines["config"] and "47 examples" in lines["data"]
  assert lines["resume"].startswith("ok") and "a new run, from step 0" in lines["resume"]


def test_what_stands_in_the_way_is_said_and_the_rest_is_checked(check, tmp_path):
  code, lines = check("--config.data.source=npz:/nothing.npz")
  assert (
    code == 2 and lines["config"] == "FAIL  config    data source: npz:/nothing.npz: found nothing, expected a file"
  )
  assert lines["workdir"].startswith("ok")
  (tmp_path / "run").rmdir()
  (tmp_path / "run").write_text("a file")
  code, lines = check()
  assert code == 2 and lines["workdir"].startswith("FAIL  workdir   --workdir: cannot write to")


def test_the_run_that_is_there_is_compared(check, tmp_path):
  check()
  (tmp_path / "run" / "config.json").write_text(json.dumps({"seed": 4, "data": {}}))
  code, lines = check()
  assert code == 2 and "holds a run of another config" in lines["resume"]


@pytest.mark.parametrize(("fits", "code"), [(True, 0), (False, 2)])
def test_the_plan_is_asked_in_its_own_process(check, monkeypatch, fits, code):
  plan = dict(topology="v5e:2x4", fits=fits, needed_bytes=2**31, hbm_bytes=2**34, roofline_seconds=0.5, bound="compute")
  asked = []

  def run(command, **_):
    asked.extend(command)
    return types.SimpleNamespace(returncode=0, stdout=json.dumps(plan), stderr="")

  monkeypatch.setattr(preflight.subprocess, "run", run)
  found, lines = check("--topology=v5e:2x4", "--config.seed=7")
  assert found == code and "2.00 of 16.00 GiB a chip" in lines["plan"]
  assert {"--topology=v5e:2x4", "--config.seed=7", "--json"} <= set(asked)
