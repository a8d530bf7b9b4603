"""Every shell script of launch/: bash reads it, shellcheck has nothing to say, it can be run as it lies there."""

import os
import pathlib
import subprocess
import sysconfig

import pytest
import yaml

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"
SCRIPTS = sorted([*LAUNCH.rglob("*.sh"), *LAUNCH.rglob("*.sbatch")])
RECIPES = [(path, part) for path in sorted(LAUNCH.glob("skypilot/*.yaml")) for part in ("setup", "run")]


def check(command, **options):
  done = subprocess.run(command, capture_output=True, text=True, **options)
  assert done.returncode == 0, done.stdout + done.stderr


def shellcheck(*arguments, **options):
  check([str(pathlib.Path(sysconfig.get_path("scripts")) / "shellcheck"), "--shell=bash", *arguments], **options)


def test_there_are_scripts():
  assert {path.name for path in SCRIPTS} >= {"local.sh", "queued_resource.sh", "startup.sh", "train.sbatch"}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_script(path):
  check(["bash", "-n", str(path)])
  # SOURCE, EXTRAS and ARGUMENTS are put in front of startup.sh.
  shellcheck(*(["--exclude=SC2154"] if path.name == "startup.sh" else []), str(path))
  assert path.suffix == ".sbatch" or os.access(path, os.X_OK)


@pytest.mark.parametrize(("path", "part"), RECIPES, ids=lambda part: getattr(part, "stem", part))
def test_script_in_a_recipe(path, part):
  shellcheck("-", input=yaml.safe_load(path.read_text())[part])
