"""launch/skypilot/: keys of its documented YAML, and the three flags that become of its variables."""

import os
import pathlib
import subprocess

import pytest
import yaml

LAUNCH = pathlib.Path(__file__).parents[2] / "launch" / "skypilot"
RECIPES = {path.stem: yaml.safe_load(path.read_text()) for path in LAUNCH.glob("*.yaml")}
# Those we use of https://docs.skypilot.co/en/latest/reference/yaml-spec.html
TASK = {"workdir": str, "num_nodes": int, "resources": dict, "envs": dict, "setup": str, "run": str}
RESOURCES = {"infra": str, "accelerators": str, "accelerator_args": dict, "use_spot": bool, "job_recovery": dict}


@pytest.mark.parametrize("name", ["gpu", "tpu"])
def test_keys(name):
  recipe = RECIPES[name]
  for section, types in ((recipe, TASK), (recipe["resources"], RESOURCES)):
    assert {key: types[key] for key in section} == {key: type(value) for key, value in section.items()}
  assert recipe["resources"]["job_recovery"] == {"max_restarts_on_errors": 3, "recover_on_exit_codes": [75]}
  assert recipe["envs"]["WORKDIR"] is recipe["envs"]["NFS"] is None  # SkyPilot refuses to start without it
  assert set(recipe["resources"].get("accelerator_args", {})) <= {"runtime_version"}


def words(home, name, **environment):
  """Returns the words that ssljax is started with."""
  (home / "ssljax" / "bin").mkdir(parents=True)
  program = home / "ssljax" / "bin" / "ssljax"
  program.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\nexit 75')
  program.chmod(0o755)
  mounted = home / "bin" / "mountpoint"
  mounted.parent.mkdir()
  mounted.write_text("#!/usr/bin/env bash\n")
  mounted.chmod(0o755)
  path = f"{mounted.parent}:{os.environ['PATH']}"
  own = {"HOME": str(home), "PATH": path, "CONFIG": "configs/a b.py", "WORKDIR": "/shared/run", **environment}
  command = ["bash", "-c", RECIPES[name]["run"]]
  done = subprocess.run(command, env={**os.environ, **own}, capture_output=True, text=True, timeout=120)
  assert done.returncode == 75, done.stderr
  return done.stdout.splitlines()


def test_nodes_become_the_three_flags(tmp_path):
  nodes = {"SKYPILOT_NODE_IPS": "10.0.0.7\n10.0.0.8", "SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_RANK": "1"}
  flags = ["--coordinator=10.0.0.7:8476", "--num-processes=2", "--process-id=1"]
  assert words(tmp_path, "gpu", **nodes) == ["train", "--config=configs/a b.py", "--workdir=/shared/run", *flags]


def test_on_a_slice_jax_asks_the_machine(tmp_path):
  assert words(tmp_path, "tpu") == ["train", "--config=configs/a b.py", "--workdir=/shared/run"]
