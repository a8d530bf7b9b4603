"""Streams of tasks, annealed branches and changed schedules through the command line, in process."""

import json
import pathlib
import random
import shutil

import numpy as np
import pytest

from ssljax import runtime
from ssljax.cli import main

HERE = pathlib.Path(__file__).parent
CONFIG, STREAM = f"--config={HERE}/tiny_config.py:plain", f"--config={HERE}/tiny_stream.py"
INFINITE = "--config.optimizer.learning_rate"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  """Three sets of pictures and three of texts, which have nothing in common."""
  folder = tmp_path_factory.mktemp("tasks")
  generator = np.random.default_rng(0)
  for number, name in enumerate("abc"):
    pictures = generator.integers(80 * number, 80 * number + 80, (50, 20, 24, 3), dtype=np.uint8)
    np.savez(folder / f"{name}.npz", image=pictures, label=np.arange(50) % 5)
    words = ["".join(random.Random(f"{name}{n}").choices("abcdefgh", k=4)) for n in range(9)]
    texts = [" ".join(random.Random(n).choices(words, k=5 + n % 30)) for n in range(60)]
    (folder / f"{name}.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
  np.savez(folder / "pictures.npz", **np.load(folder / "a.npz"))
  return folder


@pytest.fixture(autouse=True)
def environment(data, monkeypatch):
  monkeypatch.setattr(runtime, "start", lambda **_: None)
  monkeypatch.setenv("SSLJAX_TEST_DATA", str(data))
  monkeypatch.setenv("SSLJAX_CACHE", str(data / "cache"))
  monkeypatch.syspath_prepend(str(HERE))


@pytest.fixture(scope="module")
def stream(data, tmp_path_factory):
  """A finished stream of two tasks, each measured on an annealed branch."""
  workdir = tmp_path_factory.mktemp("runs") / "stream"
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(runtime, "start", lambda **_: None)
    patch.setenv("SSLJAX_TEST_DATA", str(data))
    patch.syspath_prepend(str(HERE))
    assert main(["train", STREAM, f"--workdir={workdir}", "--config.continual.anneal_steps=2"]) == 0
  return workdir


def lines(workdir):
  return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def refused(capsys, *arguments):
  capsys.readouterr()
  assert main(list(arguments)) == 2
  found = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
  assert len(found) == 1
  return found[0]


def test_a_stream_leaves_what_is_known_after_each_task(stream):
  known = json.loads((stream / "eval" / "continual.json").read_text())
  assert known["tasks"] == ["a", "b"] and list(known["rows"]) == ["before", "a", "b"]
  assert all(len(row["knn"]) == 2 and all(0 <= x <= 1 for x in row["knn"]) for row in known["rows"].values())
  final = json.loads((stream / "eval" / "final.json").read_text())
  names = ("average", "average_seen", "backward_transfer", "forward_transfer", "forgetting")
  assert set(final) == {f"continual/knn/{name}" for name in names}
  matrix = np.array([known["rows"][name]["knn"] for name in "ab"])
  assert final["continual/knn/average"] == pytest.approx(matrix[1].mean())
  assert final["continual/knn/forgetting"] == pytest.approx(matrix[0, 0] - matrix[1, 0])
  assert "kNN accuracy" in (stream / "report.html").read_text()


def test_the_trunk_never_anneals_and_its_branches_do(stream):
  trunk = lines(stream)
  assert [line["step"] for line in trunk] == list(range(1, 13))
  assert all(line["train/learning_rate"] == pytest.approx(1e-3) for line in trunk[4:])
  for number, name in enumerate("ab"):
    branch = lines(stream / "branches" / f"{number}_{name}")
    assert [line["step"] for line in branch] == [6 * number + 7, 6 * number + 8]
    assert branch[-1]["train/learning_rate"] == pytest.approx(1e-3 * 0.1**0.5) and branch[-1]["train/phase"] == 3
  assert {int(path.name) for path in (stream / "checkpoints").iterdir() if path.name.isdigit()} == {6, 12}


def test_a_task_that_arrives_later_is_trained_on(stream, tmp_path, capsys):
  longer = tmp_path / "longer"
  shutil.copytree(stream, longer)
  assert main(["train", f"{STREAM}:three", f"--workdir={longer}"]) == 0
  assert "knn after" in capsys.readouterr().out
  known = json.loads((longer / "eval" / "continual.json").read_text())["rows"]
  before = json.loads((stream / "eval" / "continual.json").read_text())["rows"]
  assert known == before | {"c": known["c"]} and len(known["c"]["knn"]) == 3
  assert lines(longer)[:12] == lines(stream) and len(lines(longer)) == 18
  assert "continual/knn/forgetting" in json.loads((longer / "eval" / "final.json").read_text())


def test_a_changed_stream_is_refused(stream, tmp_path, capsys):
  shutil.copytree(stream, tmp_path / "copy")
  command = ["train", STREAM, f"--workdir={tmp_path}/copy"]
  assert "stream" in refused(capsys, *command, "--config.stream=[{'name':'a','source':'npz:x.npz','steps':6}]")
  assert "npz:x.npz" in refused(
    capsys,
    "train",
    STREAM,
    f"--workdir={tmp_path}/new",
    "--config.stream=[{'name':'a','source':'npz:x.npz','steps':6}]",
  )
