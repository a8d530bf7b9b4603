"""Real processes: a run that is killed and started again is the run that was never stopped, bit for bit."""

import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

HERE = pathlib.Path(__file__).parent
STEPS = 40
RATES = ("train/examples_per_second", "train/data_wait")  # what the clock decides


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
  folder = tmp_path_factory.mktemp("resume")
  pictures = np.random.default_rng(0).integers(0, 256, (50, 20, 24, 3), dtype=np.uint8)
  np.savez(folder / "pictures.npz", image=pictures, label=np.arange(50) % 5)
  words = ["the", "cat", "of", "a", "neighbour", "sat", "on", "seven", "mats"]
  texts = [" ".join(random.Random(n).choices(words, k=3 + n % 50)) for n in range(80)]
  (folder / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
  return folder


def start(ground, workdir, *, workers=0, steps=STEPS, config="tiny_config.py:recorder", options=(), quick=False):
  command = [
    sys.executable,
    "-m",
    "ssljax",
    "train",
    f"--config={HERE}/{config}",
    f"--workdir={workdir}",
  ]
  command += ["--cpu-devices=2", f"--config.data.workers={workers}", f"--config.steps={steps}", *options]
  path = os.pathsep.join([str(HERE.parent), str(HERE)])
  own = {"PYTHONPATH": path, "SSLJAX_TEST_DATA": str(ground), "JAX_COMPILATION_CACHE_DIR": str(ground / "cache")}
  own["SSLJAX_CACHE"] = str(ground / "ssljax")
  own |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"} if quick else {"XLA_FLAGS": ""}  # as other tests do; as users do
  environment = {**os.environ, **own, "JAX_PLATFORMS": "cpu"}
  with open(f"{workdir}.log", "a") as log:
    return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def finish(ground, workdir, **options):
  code = start(ground, workdir, **options).wait(timeout=300)
  assert code == 0, pathlib.Path(f"{workdir}.log").read_text()
  return workdir


def stop_at(process, workdir, step, sig):
  """Sends the signal once the metrics of `step` are written; returns the exit code."""
  file = workdir / "metrics.jsonl"
  deadline = time.monotonic() + 300
  while not file.exists() or len(file.read_bytes().splitlines()) < step:
    assert process.poll() is None and time.monotonic() < deadline, pathlib.Path(f"{workdir}.log").read_text()
    time.sleep(0.002)
  process.send_signal(sig)
  return process.wait(timeout=120)


def workers_left(ground):
  """How many data workers of processes that tests here started are alive (Linux tells)."""
  found = 0
  for process in pathlib.Path("/proc").glob("[0-9]*"):
    with contextlib.suppress(OSError):
      command, environment = ((process / name).read_bytes() for name in ("cmdline", "environ"))
      found += b"spawn_main" in command and str(ground).encode() in environment
  return found


def lines(workdir):
  return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def curve(workdir):
  """Every logged number but the clock's; one line a step, none twice."""
  assert [line["step"] for line in lines(workdir)] == list(range(1, len(lines(workdir)) + 1))
  return [{key: value for key, value in line.items() if key not in RATES} for line in lines(workdir)]


def checksums(workdir, step=STEPS):
  """The checksum of every leaf of the last state: parameters, moments, averages, step, key."""
  return json.loads((workdir / "checkpoints" / str(step) / "meta" / "metadata").read_text())["checksums"]


@pytest.fixture(scope="module")
def straight(ground):
  return finish(ground, ground / "straight")


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_and_started_again(ground, straight, workers):
  workdir = ground / f"killed{workers}"
  step = random.randrange(11, 34)  # the checkpoint of step 5 is committed by then
  print(f"kill at step {step}")
  assert stop_at(start(ground, workdir, workers=workers), workdir, step, signal.SIGKILL) == -signal.SIGKILL
  deadline = time.monotonic() + 30
  while workers_left(ground):
    assert time.monotonic() < deadline, "workers outlive the process that read from them"
    time.sleep(0.1)
  finish(ground, workdir, workers=workers)
  assert "resuming at step" in pathlib.Path(f"{workdir}.log").read_text()
  assert curve(workdir) == curve(straight)
  assert checksums(workdir) == checksums(straight)


# The pictures above compile as users do; that is enough, and compiling is most of the time here.
TEXT = {"config": "tiny_text_config.py:bare", "quick": True}


@pytest.fixture(scope="module")
def straight_text(ground):
  return finish(ground, ground / "straight_text", **TEXT)


def test_text_killed_and_started_again(ground, straight_text):
  """40 steps are several epochs of this text: the plan of a later one is made anew after the kill."""
  workdir, workers = ground / "killed_text", 2
  step = random.randrange(11, 30)
  print(f"kill at step {step}")
  assert stop_at(start(ground, workdir, workers=workers, **TEXT), workdir, step, signal.SIGKILL) == -signal.SIGKILL
  finish(ground, workdir, workers=workers, **TEXT)
  assert "resuming at step" in pathlib.Path(f"{workdir}.log").read_text()
  assert curve(workdir) == curve(straight_text)
  assert checksums(workdir) == checksums(straight_text)


def test_sigterm_saves_and_asks_to_be_started_again(ground, straight):
  workdir = ground / "preempted"
  assert stop_at(start(ground, workdir), workdir, 7, signal.SIGTERM) == 75
  saved = max(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal())
  assert saved >= 7 and len(curve(workdir)) == saved
  finish(ground, workdir)
  assert curve(workdir) == curve(straight) and checksums(workdir) == checksums(straight)


def test_one_number_extends_a_run_and_one_flag_continues_it_on_other_data(ground, straight):
  """The README's two commands. (That what goes on is what was never stopped, the tests above show.)"""
  extended = ground / "extended"
  shutil.copytree(straight, extended)
  finish(ground, extended, steps=STEPS + 3)
  assert curve(extended)[:STEPS] == curve(straight) and len(lines(extended)) == STEPS + 3
  pictures = np.load(ground / "pictures.npz")
  np.savez(ground / "others.npz", image=255 - pictures["image"], label=pictures["label"])
  options = [f"--from={straight}", f"--config.data.source=npz:{ground}/others.npz"]
  other = finish(ground, ground / "other", steps=STEPS + 3, options=options)
  assert [line["step"] for line in lines(other)] == [STEPS + 1, STEPS + 2, STEPS + 3]
  assert lines(other)[0]["train/loss"] != lines(extended)[STEPS]["train/loss"]


def test_a_stream_killed_in_its_second_task_ends_as_one_that_was_not(ground):
  pictures = np.load(ground / "pictures.npz")
  for name, image in (("a", pictures["image"]), ("b", 255 - pictures["image"])):
    np.savez(ground / f"{name}.npz", image=image, label=pictures["label"])
  stream = {"config": "tiny_stream.py", "steps": 12, "options": ["--config.continual.anneal_steps=2"], "quick": True}
  whole = finish(ground, ground / "stream", **stream)
  workdir = ground / "killed_stream"
  assert stop_at(start(ground, workdir, **stream), workdir, 9, signal.SIGKILL) == -signal.SIGKILL
  finish(ground, workdir, **stream)
  assert curve(workdir) == curve(whole) and checksums(workdir, 12) == checksums(whole, 12)
  known = [json.loads((folder / "eval" / "continual.json").read_text()) for folder in (whole, workdir)]
  assert known[0] == known[1] and list(known[0]["rows"]) == ["before", "a", "b"]
