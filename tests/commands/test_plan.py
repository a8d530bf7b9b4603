"""The whole command on eight fake devices of this CPU, and every mistake a user can make."""

import json
import pathlib

import jax
import pytest

from ssljax import runtime
from ssljax.cli import main
from ssljax.commands import plan as command
from ssljax.commands.configs import load_config
from ssljax.planning import estimate as estimates
from ssljax.planning import table, topology

HERE = pathlib.Path(__file__).parents[1]
CONFIG = f"--config={HERE}/tiny_config.py:bare"
TEXT = f"--config={HERE}/tiny_text_config.py:bare"
FSDP = ("--config.mesh.data=1", "--config.mesh.fsdp=-1", "--config.fsdp_min_size=64")


@pytest.fixture(autouse=True)
def same_process(monkeypatch):
  """The devices are started already; what the command sets for its own process must not outlive the test."""
  monkeypatch.setattr(runtime, "start", lambda **_: None)
  monkeypatch.setattr(command, "_forget_programs", lambda: None)
  monkeypatch.setenv("SSLJAX_TEST_DATA", "/nowhere")  # a plan needs no data
  monkeypatch.setenv("JAX_PLATFORMS", "cpu")


def plan(capsys, *arguments, said=""):
  """The plan as JSON, alone on stdout."""
  capsys.readouterr()
  assert main(["plan", *arguments, "--json"]) == 0
  out, err = capsys.readouterr()
  assert said in err
  lines = out.splitlines()
  assert len(lines) == 1
  return json.loads(lines[0])


@pytest.fixture(scope="module")
def pictures():
  """The plan of a small MAE, its state in eighths."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("SSLJAX_TEST_DATA", "/nowhere")
    config = load_config(CONFIG.removeprefix("--config="), [tuple(p[9:].split("=")) for p in FSDP])
    return command._Planner(config, topology.parse("cpu:8")).plan(search=False)


def test_what_json_holds(pictures):
  promised = "topology num_chips fits argument_bytes temp_bytes peak_bytes hbm_bytes model_flops compiled_flops"
  for key in (*promised.split(), "collectives", "roofline_seconds", "bound"):
    assert key in pictures
  assert json.loads(json.dumps(pictures)) == pictures
  assert (pictures["topology"], pictures["num_chips"], pictures["mesh"]["fsdp"]) == ("cpu:8", 8, 8)
  assert pictures["fits"] and (pictures["batch_size"], pictures["rows"]) == (16, 2)
  assert pictures["roofline_seconds"] is None and pictures["bound"] is None  # nobody tells a CPU's peak
  assert pictures["unknown_loops"] == 0


def test_compiled_work_is_the_models_and_the_augmentations(pictures):
  share = 8 * pictures["compiled_flops"] / pictures["model_flops"]
  resampling = 2 * 16 * (16 * 20 * 20 * 3 + 16 * 16 * 20 * 3)  # rows, then columns, of 16 pictures of 20 pixels to 16
  assert 1 <= share <= 1 + 1.05 * resampling / pictures["model_flops"]


def test_the_state_is_cut(pictures):
  parts = pictures["state_bytes"]
  # Two moments and an average for each parameter, but for small leaves, and the counts of steps.
  assert 0 < 3 * parts["parameters"] <= parts["optimizer"] <= 3 * parts["parameters"] + 64
  assert sum(parts.values()) < pictures["argument_bytes"] < sum(parts.values()) + 2 * (20 * 20 * 3 + 64) + 64
  assert {"all-gather", "all-reduce"} <= pictures["collectives"].keys()


def test_the_table_says_the_same(pictures, capsys):
  table.show({"config": "tiny"} | pictures)
  out = capsys.readouterr().out
  assert "cpu:8: 8 chips" in out and "fsdp=8" in out and "all-gather" in out and "x model" in out
  assert "a stand-in" in out and "roofline" not in out


def test_recomputation_is_the_compiled_programs_alone(capsys, pictures):
  full = plan(capsys, CONFIG, "--topology=cpu:8", *FSDP, "--config.objective.encoder.remat=full")
  assert full["model_flops"] == pictures["model_flops"] and full["remat"] == "full"
  # Of loss, gradient of weights and gradient of inputs, a third each, the first is done again, in the blocks alone.
  assert 1.15 < full["compiled_flops"] / pictures["compiled_flops"] < 4 / 3


def test_text_needs_neither_texts_nor_a_tokenizer(capsys):
  found = plan(capsys, TEXT, "--topology=cpu:8", "--config.data.text.tokenizer=nowhere.model")
  assert found["fits"] and found["batch_size"] == 8
  # Every device works out the whole relative bias, [2 heads, 32 buckets] by places, and its gradient.
  bias = 2 * 2 * 2 * 32 * (64**2 + 48**2)
  assert found["compiled_flops"] == found["model_flops"] // 8 + bias * 7 // 8


class TooLarge:
  """What stands for a compiler that takes batches up to two rows a device, and only with recomputation."""

  def __init__(self, monkeypatch):
    self.asked = []
    monkeypatch.setattr(command._Planner, "_estimate", lambda planner, run: self.estimate(run))

  def estimate(self, run):
    rows, remat = run.job.data.batch_size // 8, run.config["objective"]["encoder"].get("remat", "none")
    self.asked.append((remat, rows))
    fits = remat == "full" and rows <= 2
    return estimates.Estimate(fits=fits, limit=1000, needed=900 if fits else 5000)


def test_what_does_not_fit_is_an_answer(capsys, monkeypatch):
  TooLarge(monkeypatch)
  found = plan(capsys, CONFIG, "--topology=cpu:8")
  assert not found["fits"] and found["needed_bytes"] == 5000 and found["temp_bytes"] is None
  assert main(["plan", CONFIG, "--topology=cpu:8"]) == 0
  out = capsys.readouterr().out
  assert "NO" in out and "the compiler refused the step" in out


def test_fit(capsys, monkeypatch):
  compiler = TooLarge(monkeypatch)
  line = "fit: remat=full, 4 examples a chip: does not fit, 0.00 MiB of 0.00 MiB\n"
  found = plan(capsys, CONFIG, "--topology=cpu:8", "--fit", said=line)
  assert [(line["remat"], line["rows"]) for line in found["fit"]] == [
    ("none", 0), ("dots", 0), ("attention_out", 0), ("full", 2),
  ]  # fmt: skip
  assert found["best"] == "remat=full, data.batch_size=16" and ("full", 4) in compiler.asked
  assert len(compiler.asked) == len(set(compiler.asked))  # what the plan compiled is not compiled again


@pytest.mark.parametrize(
  ("arguments", "line"),
  [
    (("--topology=cpu",), "unknown topology cpu (did you mean cpu:8?"),
    (("--topology=cpu:8", "--slices=2"), "--slices: found 2, expected 1: cpu has none"),
    (("--topology=cpu:8", "--config.mesh.fsdp=3"), "mesh: data=-1 x fsdp=3 does not fit 8 devices"),
    (("--topology=cpu:8", "--config.data.batch_size=12"), "data.batch_size: found 12, expected a multiple of the 8"),
    (("--topology=cpu:8", "--config.objective.ratio=1"), "unknown key ratio (did you mean mask_ratio?"),
  ],
)
def test_mistakes(capsys, arguments, line):
  assert main(["plan", CONFIG, *arguments]) == 2
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) == 1 and line in lines[0]


def test_slices_are_copies_of_the_state():
  sliced = command._sliced({"mesh": {"fsdp": 4}}, topology.parse("v5e:4x4", slices=2))
  assert sliced["mesh"] == {"slice": 2, "fsdp": 4}
  assert command._sliced({}, topology.parse("v5e:4x4")) == {}


def test_the_devices_were_left_alone():
  assert len(jax.devices()) == 8
