"""Real processes with real collectives between them: the same run on any number of hosts and devices."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from importlib import metadata

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax import tree
from ssljax.data.pipeline import index_words

HERE = pathlib.Path(__file__).parent
BATCH = 16


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
  folder = tmp_path_factory.mktemp("hosts")
  pictures = np.random.default_rng(0).integers(0, 256, (50, 20, 24, 3), dtype=np.uint8)
  np.savez(folder / "pictures.npz", image=pictures, label=np.arange(50) % 5)
  words = np.random.default_rng(1).choice(["the", "cat", "of", "a", "neighbour", "sat", "on", "seven"], (80, 30))
  (folder / "texts.jsonl").write_text("\n".join(json.dumps({"text": " ".join(row)}) for row in words))
  return folder


def free_port():
  with socket.socket() as one:
    one.bind(("", 0))
    return one.getsockname()[1]


@contextlib.contextmanager
def processes(ground, commands, log):
  """The processes of these commands; none outlives the block."""
  own = {"PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)]), "SSLJAX_TEST_DATA": str(ground)}
  own |= {"JAX_COMPILATION_CACHE_DIR": str(ground / "cache"), "SSLJAX_CACHE": str(ground / "ssljax")}
  own |= {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
  started = []
  try:
    for number, command in enumerate(commands):
      with open(f"{log}.{number}.log", "a") as file:
        started.append(subprocess.Popen(command, env={**os.environ, **own}, stdout=file, stderr=file))
    yield started
  finally:
    for process in started:
      process.kill()
      process.wait()


def codes(started, log, *, timeout=300):
  deadline = time.monotonic() + timeout
  found = [process.wait(timeout=max(deadline - time.monotonic(), 1)) for process in started]
  return found, [pathlib.Path(f"{log}.{number}.log").read_text() for number in range(len(started))]


def train(ground, folder, *, hosts, devices, steps):
  """All three methods up to `steps` on hosts x devices."""
  place = [f"127.0.0.1:{free_port()}", str(hosts)]
  rest = [str(devices), str(steps), str(ground / folder)]
  commands = [[sys.executable, str(HERE / "one_of_several.py"), *place, str(i), *rest] for i in range(hosts)]
  log = ground / f"{folder}_{hosts}x{devices}_{steps}"
  with processes(ground, commands, log) as started:
    found, logs = codes(started, log)
  assert found == [0] * hosts, "\n".join(logs)


def lines(workdir):
  return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def runs(ground):
  """One run that stays where it is, and one that moves every few steps."""
  train(ground, "straight", hosts=1, devices=8, steps=8)
  for steps, (hosts, devices) in zip((2, 5, 8), ((2, 4), (2, 1), (1, 1)), strict=True):
    train(ground, "moving", hosts=hosts, devices=devices, steps=steps)
  return ground / "straight", ground / "moving"


@pytest.mark.parametrize("method", ["mae", "simclr", "ul2"])
def test_hosts_and_devices_change_rounding_alone(runs, method):
  straight, moving = ([line for line in lines(run / method) if "train/loss" in line] for run in runs)
  assert [line["step"] for line in straight] == [line["step"] for line in moving] == list(range(1, 9))
  for a, b in zip(straight, moving, strict=True):
    assert a["train/loss"] == pytest.approx(b["train/loss"], rel=1e-5), a["step"]
    assert a["train/grad_norm"] == pytest.approx(b["train/grad_norm"], rel=1e-3), a["step"]
    assert all(a[key] == b[key] for key in a if key.startswith("record/index")), a["step"]


def test_health_is_the_same_on_hosts_that_move(runs):
  straight, moving = ([line for line in lines(run / "simclr") if "health/collapse" in line] for run in runs)
  assert [line["step"] for line in straight] == [line["step"] for line in moving] == [0, 2, 4, 6, 8]
  for a, b in zip(straight, moving, strict=True):
    assert a == {key: pytest.approx(b[key], rel=1e-3, abs=1e-4) for key in a}, a["step"]


@pytest.mark.parametrize("method", ["mae", "simclr", "ul2"])
def test_parameters_end_the_same(runs, method):
  straight, moving = (parameters(run / method / "checkpoints" / "8" / "state") for run in runs)
  assert straight.keys() == moving.keys()
  for name, value in straight.items():
    np.testing.assert_allclose(value, moving[name], atol=1e-5, err_msg=name)


def parameters(folder):
  import orbax.checkpoint as ocp

  with ocp.PyTreeCheckpointer() as reader:
    held = reader.metadata(folder).item_metadata.tree
    numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), held)
    state = reader.restore(folder, restore_args=numpy)
  return dict(tree.named_leaves(state["params"]))


def commands(ground, hosts, *, steps, workdir="lost"):
  """`ssljax train` on so many hosts of one device each."""
  config = [f"--config={HERE}/tiny_config.py:recorder", f"--config.steps={steps}", "--cpu-devices=1"]
  config += ["--config.objective.encoder.depth=1", "--config.augment.recipe=none"]  # each process compiles anew
  place = [f"--coordinator=127.0.0.1:{free_port()}", f"--num-processes={hosts}", "--lost-timeout=20"]
  train = [sys.executable, "-m", "ssljax", "train", *config, f"--workdir={ground / workdir}"]
  return [[*train, *place, f"--process-id={index}"] if hosts > 1 else train for index in range(hosts)]


def until(started, happened):
  """Waits until something has happened while all processes live."""
  deadline = time.monotonic() + 200
  while not happened():
    assert time.monotonic() < deadline and all(process.poll() is None for process in started)
    time.sleep(0.01)


def written(workdir):
  """How many steps have written their metrics."""
  file = workdir / "metrics.jsonl"
  return len(file.read_bytes().splitlines()) if file.exists() else 0


def newest(workdir):
  """The step of the newest checkpoint that is whole; 0 before the first (saving goes on beside the steps)."""
  return max((int(path.name) for path in (workdir / "checkpoints").glob("[0-9]*") if path.name.isdecimal()), default=0)


def test_a_run_that_was_killed_goes_on_with_any_number_of_hosts(ground):
  workdir, name = ground / "lost", socket.gethostname()
  with processes(ground, commands(ground, 2, steps=5000), ground / "killed") as started:
    until(started, lambda: written(workdir) >= 7 and newest(workdir))
    started[1].kill()
    found, logs = codes(started, ground / "killed", timeout=20)
  assert found == [1, -signal.SIGKILL], "\n".join(logs)
  assert f"error: process 1 ({name}) left the run; the same command goes on from the last checkpoint" in logs[0]

  kept, before = newest(workdir), written(workdir)
  with processes(ground, commands(ground, 4, steps=5000), ground / "signalled") as started:
    until(started, lambda: written(workdir) > before)
    started[1].send_signal(signal.SIGTERM)  # to one: all save the same step and stop
    found, logs = codes(started, ground / "signalled")
  assert found == [75] * 4 and f"resuming at step {kept}" in logs[0], "\n".join(logs)

  last = lines(workdir)[-1]["step"]
  assert newest(workdir) == last
  with processes(ground, commands(ground, 1, steps=last + 2), ground / "alone") as started:
    found, logs = codes(started, ground / "alone")
  assert found == [0] and f"resuming at step {last}" in logs[0], "\n".join(logs)
  last += 2
  assert [line["step"] for line in lines(workdir)] == list(range(1, last + 1))
  for line in lines(workdir):
    positions = (line["step"] - 1) * BATCH + np.arange(BATCH)
    word = int(tree.fold(jnp.asarray(index_words(positions)))[0])
    assert [line["record/index_0"], line["record/index_1"]] == [word & 0xFFFF, word >> 16]


def test_hosts_that_differ_do_not_begin(ground):
  other = ground / "other" / "optax-0.0.1.dist-info"  # what another version installed there looks like
  other.mkdir(parents=True)
  (other / "METADATA").write_text("Metadata-Version: 2.1\nName: optax\nVersion: 0.0.1\n")
  first, second = commands(ground, 2, steps=4, workdir="differs")
  path = os.pathsep.join(map(str, (other.parent, HERE.parent, HERE)))
  second = ["env", f"PYTHONPATH={path}", *second, "--config.seed=4"]
  with processes(ground, [first, second], ground / "differs") as started:
    found, logs = codes(started, ground / "differs", timeout=60)
  name = socket.gethostname()
  line = f"error: hosts: process 1 ({name}) differs from process 0 ({name}): "
  line += f"optax ({metadata.version('optax')!r} -> '0.0.1'); seed (3 -> 4)"
  assert found == [2, 2] and all(log.splitlines() == [line] for log in logs), "\n".join(logs)
  assert not (ground / "differs" / "metrics.jsonl").exists()
