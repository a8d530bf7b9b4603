"""`ssljax export` and `ssljax import`: there and back by the command line, and every mistake a user can make."""

import contextlib
import importlib.util
import json
import pathlib
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from ssljax import runtime, transforms, tree
from ssljax.checkpoint import Checkpoints
from ssljax.cli import main
from ssljax.commands import workdir as workdirs
from ssljax.commands.configs import load_config
from ssljax.training import run as runs
from ssljax.training import state as states

HERE = pathlib.Path(__file__).parents[1]
CONFIG = f"--config={HERE}/tiny_config.py"
DOCS = HERE.parent / "docs" / "export.md"
PHASES = "'warmup_steps': 0, 'cooldown_steps': 0"
CONSTANT = f"{{'name': 'infinite', 'peak': 1e-3, 'constant': 1e-3, 'minimum': 1e-4, {PHASES}}}"


@pytest.fixture(autouse=True)
def same_devices(monkeypatch):
  monkeypatch.setattr(runtime, "start", lambda **_: None)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  folder = tmp_path_factory.mktemp("data")
  pictures = np.random.default_rng(0).integers(0, 256, (60, 16, 16, 3), dtype=np.uint8)
  pictures[:, :8, :8] = (np.arange(60) % 5 * 50)[:, None, None, None]  # something to tell classes by
  np.savez(folder / "pictures.npz", image=pictures, label=np.arange(60) % 5)
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("SSLJAX_TEST_DATA", str(folder))
    yield folder


def saved(config, folder, *, change=lambda state: state):
  """The work directory of a run, as if it had been trained for 4 steps."""
  run = runs.assemble(config)
  with contextlib.closing(Checkpoints(folder / "checkpoints")) as store, jax.set_mesh(run.mesh):
    state = change(states.create(run.init, run.like, 3))
    store.save(4, state.replace(step=state.step + 4), config=run.config)
  workdirs.write_json(folder / "config.json", run.config)
  workdirs.write_json(folder / "eval" / "4.json", {"trained/knn": 0.25, "trained/note": "x"})
  return folder


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
  config = load_config(f"{HERE}/tiny_config.py", [("data.image_size", "16")])
  twice = lambda state: state.replace(params=jax.tree.map(lambda x: 2 * x, state.params))  # the average is not
  return saved(config, tmp_path_factory.mktemp("runs") / "mae", change=twice)


def export(run, out, *arguments, format="huggingface"):
  return main(["export", f"--workdir={run}", f"--format={format}", f"--out={out}", *arguments])


def refused(capsys, *arguments):
  capsys.readouterr()
  assert main(list(arguments)) == 2
  (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
  return line


def test_which_weights_leave_and_what_the_card_says(run, tmp_path, capsys):
  assert export(run, tmp_path / "auto") == 0
  printed = capsys.readouterr().out
  assert "huggingface ViTModel, the averaged weights of step 4" in printed
  assert re.search(r"largest difference of tokens: \d\.\de-\d\d", printed)
  assert export(run, tmp_path / "student", "--weights=student") == 0
  auto, student = (load_file(tmp_path / name / "model.safetensors") for name in ("auto", "student"))
  name = "encoder.layer.1.output.dense.weight"
  np.testing.assert_array_equal(student[name], 2 * auto[name])
  card = (tmp_path / "auto" / "README.md").read_text()
  assert "| trained/knn | 0.25 |" in card and '"decoder_width": 16' in card and "averaged weights" in card
  looks = json.loads((tmp_path / "auto" / "preprocessor_config.json").read_text())
  assert looks["image_mean"] == [0.485, 0.456, 0.406] and looks["size"] == {"shortest_edge": 16}


def test_the_written_preprocessing_is_the_runs(run, tmp_path):
  """transformers' own image processor makes the encoder's input of a picture."""
  import torch
  from transformers import CLIPImageProcessorPil, ViTModel

  assert export(run, tmp_path / "out") == 0
  assembled = runs.assemble(workdirs.read_config(run) | {"evaluation": None})
  host = assembled.source.read(np.arange(4)).arrays
  expected = np.asarray(assembled.augment.evaluate(host)["image"])
  process = CLIPImageProcessorPil.from_pretrained(tmp_path / "out")
  pixels = process(list(host["image"]), return_tensors="pt")["pixel_values"]
  np.testing.assert_allclose(np.moveaxis(pixels.numpy(), 1, -1), expected, atol=1e-5)
  with torch.inference_mode():
    hidden = ViTModel.from_pretrained(tmp_path / "out", add_pooling_layer=False)(pixels).last_hidden_state
  assert hidden.shape == (4, 17, 16)


def test_in_and_on_and_out_again(data, tmp_path):
  """A released architecture comes in, is trained for 50 steps from the constant phase, and leaves."""
  import torch
  from transformers import ViTConfig, ViTModel

  torch.manual_seed(0)
  sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
  model = ViTModel(ViTConfig(**sizes, image_size=16, patch_size=4), add_pooling_layer=False)
  model.save_pretrained(tmp_path / "released")
  encoder = ["positions=learnt", "norm_epsilon=1e-12", "drop_path=0.0"]
  given = [CONFIG, *(f"--config.objective.encoder.{key}" for key in encoder), "--config.data.image_size=16"]
  given += ["--config.evaluation=none", f"--config.optimizer.learning_rate={CONSTANT}", "--config.checkpoint.every=50"]
  begun, on, out = (str(tmp_path / name) for name in ("begun", "on", "out"))
  source = ["--format=huggingface", f"--from={tmp_path}/released"]
  assert main(["import", *given, *source, f"--workdir={begun}"]) == 0
  assert json.loads((tmp_path / "begun" / "import.json").read_text())["class"] == "ViTModel"
  assert export(begun, tmp_path / "same") == 0  # the average of no steps is what came in
  first, same = (load_file(tmp_path / place / "model.safetensors") for place in ("released", "same"))
  assert first.keys() == same.keys() and all(np.array_equal(first[name], same[name]) for name in first)

  assert main(["train", *given, f"--from={begun}", f"--workdir={on}", "--config.steps=50"]) == 0
  lines = [json.loads(line) for line in (tmp_path / "on" / "metrics.jsonl").read_text().splitlines()]
  assert [line["step"] for line in lines] == list(range(1, 51))
  assert [line["train/learning_rate"] for line in lines] == pytest.approx([1e-3] * 50)
  assert export(on, out) == 0
  trained = ViTModel.from_pretrained(out, add_pooling_layer=False).state_dict()
  moved = [name for name, value in model.state_dict().items() if not torch.equal(value, trained[name])]
  assert len(moved) == len(trained)


def test_import_makes_anew_what_does_not_come_in(run, data, tmp_path):
  assert export(run, tmp_path / "out") == 0
  given = ["--config.data.image_size=16", "--config.seed=5", "--format=huggingface", f"--from={tmp_path}/out"]
  assert main(["import", CONFIG, *given, f"--workdir={tmp_path}/mae"]) == 0
  config = workdirs.read_config(tmp_path / "mae")
  assembled = runs.assemble(config)
  fresh = states.create(assembled.init, assembled.like, assembled.job.seed)
  with contextlib.closing(Checkpoints(tmp_path / "mae" / "checkpoints")) as store, jax.set_mesh(assembled.mesh):
    state = store.restore(0, assembled.like)
  pairs = lambda a, b: zip(tree.named_leaves(a), tree.named_leaves(b), strict=True)
  same = lambda a, b: {name for (name, x), (_, y) in pairs(a, b) if (x == y).all()}
  alike = same(state.params, fresh.params)
  assert {name for name, _ in tree.named_leaves(fresh.params) if name.startswith("decoder/")} <= alike
  assert "encoder/blocks/attn/qkv/kernel" not in alike and int(state.step) == 0
  average = transforms.ema_params(state.opt_state)
  assert same(average, state.params) == {name for name, _ in tree.named_leaves(state.params)}


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--format=tim"], r"--format: nothing is called tim \(did you mean timm\?"),
    (["--format=torchvision"], r"encoder is a ViT; formats that fit: timm, huggingface, .*safetensors"),
    (
      ["--format=huggingface", "--class=ViTModl"],
      r"--class: nothing of huggingface .* ViTModl \(did you mean ViTModel",
    ),
    (["--format=huggingface", "--weights=teacher"], r"found teacher, but this method has none"),
    (["--format=huggingface", "--out={run}"], r"--out: .* is there already, expected a new folder"),
    (["--format=huggingface", "--out={tmp}/no/such"], r"--out: no folder .*/no"),
    (["--format=huggingface", "--workdir={run}@3"], r"--workdir: .* has no step 3, expected one of \[4\]"),
    (["--format=huggingface", "--workdir={tmp}"], r"--workdir: .* has no config.json"),
  ],
)
def test_mistakes_of_an_export(arguments, message, run, tmp_path, capsys):
  given = {"--workdir": str(run), "--out": f"{tmp_path}/out"}
  given |= dict(part.format(run=run, tmp=tmp_path).split("=", 1) for part in arguments)
  line = refused(capsys, "export", *(f"{key}={value}" for key, value in given.items()))
  assert re.search(message, line), line
  assert not list(tmp_path.iterdir())


def test_a_run_without_a_checkpoint(run, tmp_path, capsys):
  (tmp_path / "empty").mkdir()
  shutil.copy(run / "config.json", tmp_path / "empty")
  line = refused(capsys, "export", f"--workdir={tmp_path}/empty", "--format=huggingface", f"--out={tmp_path}/out")
  assert re.search(r"--workdir: no checkpoint in .*/empty", line)


@pytest.mark.parametrize(("format", "package"), [("huggingface", "torch"), ("timm", "timm")])
def test_a_library_that_is_not_there(format, package, run, tmp_path, capsys, monkeypatch):
  real = importlib.util.find_spec
  monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == package else real(name, *rest))
  line = refused(capsys, "export", f"--workdir={run}", f"--format={format}", f"--out={tmp_path}/out")
  assert re.search(rf"{package}.* is not installed: pip install .*torch", line), line


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--from={tmp}/nothing"], r"--from: no file or folder .*nothing"),
    (["--from={tmp}"], r"--from: no weights in .*, expected a folder with"),
    (["--from={out}", "--config.objective.encoder.depth=3"], r"num_hidden_layers 2, not 3 \(objective.encoder.depth\)"),
    (["--from={out}", "--format=torchvision"], r"encoder is a ViT; formats that fit"),
    (["--from={out}", "--workdir={run}"], r"--workdir: .* holds a run already"),
    (
      ["--from={out}", "--config.objective.encoder.cls_token='none'", "--config.objective.encoder.pooling=mean"],
      "cls_token is none",
    ),
  ],
)
def test_mistakes_of_an_import(arguments, message, run, tmp_path, capsys):
  if any("{out}" in part for part in arguments):
    assert export(run, tmp_path / "out") == 0
  given = {"--format": "huggingface", "--workdir": f"{tmp_path}/begun", "--config.data.image_size": "16"}
  given |= dict(part.format(run=run, tmp=tmp_path, out=tmp_path / "out").split("=", 1) for part in arguments)
  line = refused(capsys, "import", CONFIG, *(f"{key}={value}" for key, value in given.items()))
  assert re.search(message, line), line
  assert not (tmp_path / "begun" / "config.json").exists()


def script(name):
  """The program of this name in docs/export.md."""
  return re.search(rf"```python\n(# {name}.*?)```", DOCS.read_text(), re.DOTALL)[1]


@pytest.mark.torchvision
def test_timm_alone_gives_the_accuracy_that_eval_printed(data, tmp_path, capsys):
  source = f"npz:{data}/pictures.npz"
  given = [CONFIG, "--config.data.image_size=16", "--config.steps=20", f"--config.data.source={source}"]
  assert main(["train", *given, f"--workdir={tmp_path}/run"]) == 0
  assert main(["eval", f"--workdir={tmp_path}/run", "--evals=knn"]) == 0
  measured = json.loads((tmp_path / "run" / "eval" / "20.json").read_text())["trained/knn"]
  assert export(tmp_path / "run", tmp_path / "out", format="timm") == 0
  for name in ("pictures.py", "knn_timm.py"):
    (tmp_path / name).write_text(script(name))
  pictures = ["pictures.py", "16", source, "train[:40]", "test", "pictures.npz"]
  commands = [pictures, ["knn_timm.py", "out", "pictures.npz", "5"]]
  for command in commands:
    done = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
  assert float(done.stdout.split()[1]) == pytest.approx(measured, abs=1e-3)
