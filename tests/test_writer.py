import json
import math
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.errors import UserError
from ssljax.writer import FILE, Writer, read_metrics


def write(workdir, steps, *, start=0, value=1.0):
  with Writer(workdir, start) as writer:
    for step in steps:
      writer.write(step, {"train/loss": value})


def test_lines_are_what_was_written(tmp_path):
  with Writer(tmp_path / "run") as writer:
    writer.write(1, {"train/loss": jnp.float32(0.5), "train/learning_rate": np.array([1e-3])[0]})
    assert len((tmp_path / "run" / FILE).read_text().splitlines()) == 1  # flushed while open
    writer.write(np.int64(2), {"eval/knn": 1})
  assert read_metrics(tmp_path / "run" / FILE) == [
    {"step": 1, "train/loss": 0.5, "train/learning_rate": 1e-3},
    {"step": 2, "eval/knn": 1.0},
  ]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_null(tmp_path, value):
  write(tmp_path, [1], value=value)
  strict = json.loads((tmp_path / FILE).read_text(), parse_constant=lambda name: pytest.fail(name))
  assert strict == {"step": 1, "train/loss": None}
  assert math.isnan(read_metrics(tmp_path / FILE)[0]["train/loss"])
  write(tmp_path, [2], start=1)  # and it survives a resume
  assert math.isnan(read_metrics(tmp_path / FILE)[0]["train/loss"])


def test_resume_drops_later_steps(tmp_path):
  write(tmp_path, range(1, 8), value=1)
  write(tmp_path, range(6, 10), start=5, value=2)
  rows = read_metrics(tmp_path / FILE)
  assert [row["step"] for row in rows] == list(range(1, 10))
  assert [row["train/loss"] for row in rows] == [1.0] * 5 + [2.0] * 4


def test_start_anew_empties_the_curve(tmp_path):
  write(tmp_path, [1, 2])
  write(tmp_path, [1])
  assert [row["step"] for row in read_metrics(tmp_path / FILE)] == [1]


@pytest.mark.parametrize("half", ['{"step": 3, "train/lo', "{", '{"step": 3, "train/loss": 0.'])
def test_half_written_last_line(tmp_path, half):
  write(tmp_path, [1, 2])
  with (tmp_path / FILE).open("a") as lines:
    lines.write(half)
  assert [row["step"] for row in read_metrics(tmp_path / FILE)] == [1, 2]
  write(tmp_path, [3], start=2)
  assert [row["step"] for row in read_metrics(tmp_path / FILE)] == [1, 2, 3]


@pytest.mark.parametrize(
  "line",
  [
    "rubbish",
    "[1]",
    '{"loss": 1}',
    '{"step": 1, "loss": "<b>"}',
    '{"step": "1"}',
    '{"step": 1, "a": 1' + "0" * 400 + "}",
  ],
)
def test_a_bad_line_is_named(tmp_path, line):
  (tmp_path / FILE).write_text('{"step": 1}\n' + line + '\n{"step": 2}\n')
  with pytest.raises(UserError, match=r"metrics.jsonl line 2: found"):
    read_metrics(tmp_path / FILE)


def test_no_file(tmp_path):
  with pytest.raises(UserError, match="found no file"):
    read_metrics(tmp_path / FILE)


def test_tensorboard_reads_the_events(tmp_path):
  """The records of the event file carry the tag, the step and the value."""
  from tensorboardX.proto.event_pb2 import Event

  write(tmp_path, [7], value=0.25)
  (path,) = tmp_path.glob("events.out.tfevents.*")
  data, events = path.read_bytes(), []
  while data:
    length = int.from_bytes(data[:8], "little")
    events.append(Event.FromString(data[12 : 12 + length]))
    data = data[16 + length :]
  scalars = [(e.step, v.tag, v.simple_value) for e in events for v in e.summary.value]
  assert scalars == [(7, "train/loss", 0.25)]


def test_torch_is_not_imported_and_can_be(tmp_path):
  """Where torch is installed, tensorboardX would import it in every run, for seconds."""
  program = f"""
import importlib.util, sys
from ssljax.writer import Writer
before = importlib.util.find_spec("torch")
Writer({str(tmp_path)!r}).close()
assert "torch" not in sys.modules and importlib.util.find_spec("torch") == before
"""
  assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
