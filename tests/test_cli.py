"""The command line in process: one run through all its commands, and every mistake a user can make."""

import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from ssljax import runtime
from ssljax.cli import main

HERE = pathlib.Path(__file__).parent
CONFIG = f"--config={HERE}/tiny_config.py"


@pytest.fixture(autouse=True)
def same_devices(monkeypatch):
  """The devices of the test process are started already; a command must not start them again."""
  monkeypatch.setattr(runtime, "start", lambda **_: None)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  """Fifty pictures as one file and as class folders."""
  folder = tmp_path_factory.mktemp("data")
  pictures = np.random.default_rng(0).integers(0, 256, (50, 20, 24, 3), dtype=np.uint8)
  np.savez(folder / "pictures.npz", image=pictures, label=np.arange(50) % 5)
  for i, picture in enumerate(pictures):
    file = folder / "classes" / f"class{i % 5}" / f"{i}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(file)
  return folder


@pytest.fixture(autouse=True)
def environment(data, monkeypatch):
  monkeypatch.setenv("SSLJAX_TEST_DATA", str(data))
  monkeypatch.syspath_prepend(str(HERE))


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
  """A finished run."""
  workdir = tmp_path_factory.mktemp("runs") / "trained"
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(runtime, "start", lambda **_: None)
    patch.setenv("SSLJAX_TEST_DATA", str(data))
    assert main(["train", CONFIG, f"--workdir={workdir}"]) == 0
  return workdir


def refused(capsys, *arguments):
  """Runs a command that must fail as a user's mistake; returns its one line."""
  capsys.readouterr()
  assert main(list(arguments)) == 2
  output = capsys.readouterr().err
  lines = [line for line in output.splitlines() if line.startswith("error: ")]
  assert len(lines) == 1 and "Traceback" not in output, output
  return lines[0]


def test_a_run_leaves_what_the_readme_promises(trained):
  final = json.loads((trained / "eval" / "final.json").read_text())
  for row in ("raw", "untrained", "trained"):
    assert {f"{row}/knn", f"{row}/linear_probe", f"{row}/rankme"} <= final.keys()
  lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
  assert [line["step"] for line in lines] == [1, 2, 3, 4]
  assert json.loads((trained / "config.json").read_text())["seed"] == 3
  assert (trained / "checkpoints" / "4").is_dir()
  assert {path.name for path in (trained / "pictures").glob("*.png")} == {
    "1_views.png", "2_objective_0.png", "3_neighbours.png",
  }  # fmt: skip
  page = (trained / "report.html").read_text()
  assert "raw pixels" in page and "http://" not in page.replace("http://www.w3.org", "")


def test_the_same_command_again_changes_nothing(trained, capsys):
  before = (trained / "metrics.jsonl").read_bytes()
  assert main(["train", CONFIG, f"--workdir={trained}"]) == 0
  assert "trained" in capsys.readouterr().out and (trained / "metrics.jsonl").read_bytes() == before


def test_more_steps_and_another_runs_state_go_on(trained, tmp_path, capsys):
  went_on = tmp_path / "on"
  assert main(["train", f"{CONFIG}:plain", f"--workdir={went_on}", f"--from={trained}@4", "--config.steps=6"]) == 0
  assert "continuing from" in capsys.readouterr().err
  lines = [json.loads(line) for line in (went_on / "metrics.jsonl").read_text().splitlines()]
  assert [line["step"] for line in lines] == [5, 6]


def test_eval_prints_and_stores(trained, capsys):
  assert main(["eval", f"--workdir={trained}@4", "--evals=knn,rankme"]) == 0
  stored = json.loads((trained / "eval" / "4.json").read_text())
  final = json.loads((trained / "eval" / "final.json").read_text())
  assert stored == {key: final[key] for key in ("trained/knn", "trained/rankme")}
  assert "knn" in capsys.readouterr().out


def test_report_of_two_runs(trained, tmp_path):
  shutil.copytree(trained, tmp_path / "again")
  out = tmp_path / "both.html"
  assert main(["report", str(trained), f"{tmp_path}/again", f"--out={out}"]) == 0
  assert "again" in out.read_text()


def test_data_commands(data, tmp_path, capsys):
  assert main(["data", "list"]) == 0
  assert "embedded:photos" in capsys.readouterr().out
  assert main(["data", "preview", CONFIG, f"--out={tmp_path}/x.png", "--rows=3"]) == 0
  with Image.open(tmp_path / "x.png") as sheet:
    assert sheet.size[1] > 300
  assert main(["data", "prepare", f"--source=folder:{data}/classes", f"--out={tmp_path}/shards", "--shards=2"]) == 0
  manifest = json.loads((tmp_path / "shards" / "manifest.json").read_text())
  assert "50 records, 0 left out" in capsys.readouterr().out and manifest


def test_clusters_of_a_run_order_the_next(trained, tmp_path, capsys):
  out = tmp_path / "clusters.npz"
  assert main(["data", "clusters", f"--workdir={trained}@4", "--clusters=5", f"--out={out}"]) == 0
  count = len(np.load(out)["cluster"])
  assert f"{count} records in 5 clusters of " in capsys.readouterr().out
  preview = ["data", "preview", CONFIG, f"--out={tmp_path / 'views.png'}", f"--config.data.clusters={out}"]
  assert main(preview) == 0
  line = refused(capsys, *preview, "--config.data.split=all")
  assert f"is of {count} records of npz:" in line and "expected 50 of npz:" in line
  again = ["data", "clusters", f"--workdir={trained}", f"--out={out}"]
  assert f"--clusters: found 1, expected 2 to {count}" in refused(capsys, *again, "--clusters=1")
  assert "expected a .npz file" in refused(capsys, *again[:3], "--clusters=2", "--out=clusters.txt")


def test_list(capsys):
  assert main(["list"]) == 0
  out = capsys.readouterr().out
  assert all(name in out for name in ("mae.MAE", "simclr.SimCLR", "infinite", "lars", "knn.KNN", "vit.ViT", "tfds:"))


def test_an_objective_from_outside_in_one_file(tmp_path):
  (tmp_path / "toy_config.py").write_text(
    "import tiny_config\n"
    "def get_config():\n"
    "  config = tiny_config.get_config('plain')\n"
    "  encoder = config['objective']['encoder']\n"
    "  return config | {'steps': 2, 'objective': {'name': 'toy:Toy', 'encoder': encoder, 'weight': 0.5}}\n"
  )
  assert main(["train", f"--config={tmp_path}/toy_config.py", f"--workdir={tmp_path}/run"]) == 0
  lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
  assert [line["train/loss"] for line in lines] == pytest.approx([line["toy/error"] * 0.5 for line in lines])


def test_object_storage_is_no_folder(capsys):
  assert main(["train", CONFIG, "--workdir=gs://bucket/run"]) == 2
  assert "--workdir: found gs://bucket/run, expected a folder that all hosts see" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("override", "message"),
  [
    ("objective.mask_ration=0.5", "objective: unknown key mask_ration (did you mean mask_ratio?"),
    ("objective.name=mae.MEA", "objective.name: nothing is called mae.MEA (did you mean mae.MAE?"),
    ("optimizer.learning_rate.name=infinit", "learning_rate.name: nothing is called infinit (did you mean infinite?"),
    ("log_evry=3", "unknown key log_evry (did you mean log_every?"),
    ("data.bach_size=3", "data: unknown key bach_size (did you mean batch_size?"),
    ("steps=many", "steps: found 'many' (str), expected int"),
    ("steps=0", "steps: found 0, expected at least 1"),
    ("objective.mask_ratio=0.999", "objective: mask_ratio: 0.999 keeps 0 of 16 patches"),
    ("data.source=npz:/nothing/here.npz", "/nothing/here.npz"),
    ("data.source=nzp:x", "unknown kind nzp (did you mean npz?"),
    ("data.source=embedded:photo", "unknown set photo (did you mean photos?"),
    ("data.split=test[:0]", "selects records 0 to 0 of 3, which is none"),
    ("objective.encoder.patch=5", "16"),
    ("data.batch_size=12", "data.batch_size: found 12, expected a multiple of the 8 devices"),
    ("accumulate=3", "data.batch_size: found 16, expected a multiple of accumulate=3"),
    ("accumulate=4", "data.batch_size: found 16 / accumulate=4, expected a multiple of the 8 devices"),
    ("mesh.fsdp=3", "mesh: data=-1 x fsdp=3 does not fit 8 devices"),
    ("augment.recipe=simclr", "objective: mae.MAE reads 'image', but augment views.Views and the data make"),
    ("evaluation.evals.knn.k=many", "evaluation.evals.knn.k: found 'many' (str), expected int"),
    ("evaluation.batch_size=9", "evaluation.batch_size: found 9, expected a multiple of 8 devices"),
    ("objectiv.mask_ratio=1", "unknown key objectiv (did you mean objective?"),
    ("seed.x=1", "--config.seed.x: seed is 3, expected a section"),
  ],
)  # fmt: skip
def test_mistakes_in_the_config(override, message, tmp_path, capsys):
  assert message in refused(capsys, "train", CONFIG, f"--workdir={tmp_path}/run", f"--config.{override}")


def test_coupled_examples_refuse_accumulation(tmp_path, capsys):
  simclr = {"name": "simclr.SimCLR", "encoder": {"name": "resnet.ResNet", "depth": 18, "stem": "cifar"}}
  line = refused(
    capsys, "train", f"{CONFIG}:plain", f"--workdir={tmp_path}", f"--config.objective={simclr}",
    "--config.augment.recipe=simclr", "--config.accumulate=2",
  )  # fmt: skip
  assert "accumulate: found 2, expected 1: the loss of simclr.SimCLR couples the examples" in line


def test_mistakes_in_the_command(tmp_path, trained, capsys):
  assert "did you mean" in refused(capsys, "train", f"--config={HERE}/tiny_confg.py", f"--workdir={tmp_path}")
  methods, simclr = (f"--config={HERE.parent}/configs/{name}.py:simclrr" for name in ("methods", "quickstart_simclr"))
  assert "methods.py:simclrr: expected one of simclr," in refused(capsys, "train", methods, f"--workdir={tmp_path}")
  assert "has no variants, found 'simclrr'" in refused(capsys, "train", simclr, f"--workdir={tmp_path}")
  byol = f"--config={HERE.parent}/configs/byol_resnet50.py:99ep"
  assert "byol_resnet50.py:99ep: unknown variant" in refused(capsys, "train", byol, f"--workdir={tmp_path}")
  assert "--workdir" in refused(capsys, "train", CONFIG)
  assert "invalid choice" in refused(capsys, "tarin")
  assert "no folder" in refused(capsys, "train", CONFIG, f"--workdir={tmp_path}/a", "--from=/nothing")
  assert "no step 9" in refused(capsys, "train", CONFIG, f"--workdir={tmp_path}/b", f"--from={trained}@9")
  assert "no step 9" in refused(capsys, "eval", f"--workdir={trained}@9")
  assert "did you mean knn" in refused(capsys, "eval", f"--workdir={trained}", "--evals=kn")
  assert "no config.json" in refused(capsys, "eval", f"--workdir={tmp_path}")
  assert "did you mean objectives" in refused(capsys, "list", "objective")
  assert ".png" in refused(capsys, "data", "preview", CONFIG, "--out=/nothing/x.png")


def test_no_write_permission(tmp_path, capsys):
  (tmp_path / "file").write_text("")
  assert "--workdir: cannot write to" in refused(capsys, "train", CONFIG, f"--workdir={tmp_path}/file/run")


def test_a_package_that_is_missing(tmp_path, capsys, monkeypatch):
  import importlib.util

  find = importlib.util.find_spec
  monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "mvtbdata" else find(name, *a))
  line = refused(capsys, "train", CONFIG, f"--workdir={tmp_path}", "--config.data.source=embedded:photos")
  assert "pip install mvtb-data" in line


def test_a_workdir_of_another_config(trained, capsys):
  line = refused(
    capsys, "train", CONFIG, f"--workdir={trained}", "--config.objective.mask_ratio=0.5", "--config.seed=4"
  )
  assert "objective.mask_ratio (None -> 0.5); seed (3 -> 4)" in line and "--allow-config-change" in line


def test_a_checkpoint_of_other_shapes(trained, capsys):
  before = sorted(path.name for path in (trained / "checkpoints").iterdir())
  config = (trained / "config.json").read_bytes()
  line = refused(
    capsys, "train", CONFIG, f"--workdir={trained}", "--config.objective.decoder_width=32", "--allow-config-change"
  )
  assert "checkpoint of another shape" in line and "found float32" in line and "expected float32" in line
  assert sorted(path.name for path in (trained / "checkpoints").iterdir()) == before
  assert (trained / "config.json").read_bytes() == config


def test_a_corrupt_picture_is_skipped_counted_and_named(data, tmp_path, capsys):
  shutil.copytree(data / "classes", tmp_path / "classes")
  (tmp_path / "classes" / "class0" / "0.png").write_bytes(b"no picture")
  source = [f"{CONFIG}:plain", f"--config.data.source=folder:{tmp_path}/classes", "--config.data.split=all"]
  assert main(["train", *source, f"--workdir={tmp_path}/run", "--config.data.max_corrupt=0.1"]) == 0
  errors = capsys.readouterr().err
  assert errors.count("corrupt record skipped") == 1 and "0.png" in errors
  lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
  assert lines[-1]["train/corrupt_records"] == 1
  line = refused(capsys, "train", *source, f"--workdir={tmp_path}/strict")
  assert "1 of 50 records are corrupt, more than data.max_corrupt=0.001" in line and "0.png" in line


def test_the_module_is_the_command():
  shown = subprocess.run([sys.executable, "-m", "ssljax", "--help"], capture_output=True, text=True, check=True)
  assert all(command in shown.stdout for command in ("train", "eval", "data", "report", "list"))
