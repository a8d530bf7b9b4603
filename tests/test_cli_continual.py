"""Streams of tasks, annealed branches and changed schedules through the command line, in process."""

import json
import pathlib
import random
import shutil

import jax
import numpy as np
import pytest

from ssljax import build, runtime, sharding
from ssljax.cli import main
from ssljax.commands import train
from ssljax.commands.anneal import branch
from ssljax.errors import UserError

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


def on_one_device(patch):
  """Commands start no devices and use one: what eight change is for others to test, and they compile a third longer."""
  make = sharding.make_mesh
  one = lambda devices=None, **sizes: make(devices=devices or jax.devices()[:1], **sizes)
  patch.setattr(runtime, "start", lambda **_: None)
  patch.setattr(sharding, "make_mesh", one)


@pytest.fixture(autouse=True)
def environment(data, monkeypatch):
  on_one_device(monkeypatch)
  monkeypatch.setenv("SSLJAX_TEST_DATA", str(data))
  monkeypatch.setenv("SSLJAX_CACHE", str(data / "cache"))
  monkeypatch.syspath_prepend(str(HERE))


def finished(data, folder, *arguments):
  """A finished run in a folder of its own; a module's fixtures are made before `environment` is."""
  with pytest.MonkeyPatch.context() as patch:
    on_one_device(patch)
    patch.setenv("SSLJAX_TEST_DATA", str(data))
    patch.syspath_prepend(str(HERE))
    assert main(["train", *arguments, f"--workdir={folder}"]) == 0
  return folder


@pytest.fixture(scope="module")
def stream(data, tmp_path_factory):
  """A finished stream of two tasks, each measured on an annealed branch."""
  return finished(data, tmp_path_factory.mktemp("runs") / "stream", STREAM, "--config.continual.anneal_steps=2")


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
  assert main(["train", f"{STREAM}:three", f"--workdir={longer}", "--config.continual.anneal_steps=2"]) == 0
  assert "knn after" in capsys.readouterr().out
  known = json.loads((longer / "eval" / "continual.json").read_text())["rows"]
  before = json.loads((stream / "eval" / "continual.json").read_text())["rows"]
  assert known == before | {"c": known["c"]} and len(known["c"]["knn"]) == 3
  assert lines(longer)[:12] == lines(stream) and len(lines(longer)) == 18
  assert "continual/knn/forgetting" in json.loads((longer / "eval" / "final.json").read_text())


def test_a_changed_stream_is_refused(stream, data, tmp_path, capsys):
  def tasks(**changed):
    return f"--config.stream={[dict(name='a', source=f'npz:{data}/a.npz', steps=6) | changed]}"

  command = ["train", STREAM, f"--workdir={stream}", "--config.continual.anneal_steps=2"]
  assert "a run of another config: stream" in refused(capsys, *command, tasks(steps=5))
  new = ["train", STREAM, f"--workdir={tmp_path}/new"]
  assert "found nothing, expected a file" in refused(capsys, *new, tasks(source="npz:x.npz"))
  assert "stream[0].steps: found 0" in refused(capsys, *new, tasks(steps=0))
  assert "data.source: found one, expected none" in refused(capsys, *new, "--config.data.source=npz:x.npz")
  assert "steps: found 5, expected none or 12" in refused(capsys, *new, "--config.steps=5")
  assert "continual.anneal_steps: found a branch" in refused(
    capsys, *new, "--config.continual.order=joint", "--config.continual.anneal_steps=2"
  )
  assert "replay: found a section" in refused(
    capsys, *new, "--config.continual.order=joint", "--config.continual.replay.share=0.5"
  )


def test_causal_text_in_a_stream_with_replay(tmp_path):
  command = ["train", f"{STREAM}:text", f"--workdir={tmp_path}/text", "--config.continual.replay.share=0.25"]
  assert main(command) == 0
  known = json.loads((tmp_path / "text" / "eval" / "continual.json").read_text())["rows"]
  after_a, after_b = known["a"]["C/bits_per_byte"], known["b"]["C/bits_per_byte"]
  assert after_a[0] < known["before"]["C/bits_per_byte"][0] and after_b[1] < after_a[1]  # each task was learnt
  assert json.loads((tmp_path / "text" / "eval" / "final.json").read_text())["continual/C/bits_per_byte/average"] > 0


@pytest.fixture(scope="module")
def trunk(data, tmp_path_factory):
  """A run of twelve steps, the last two on the constant phase."""
  return finished(data, tmp_path_factory.mktemp("runs") / "trunk", CONFIG, "--config.steps=12")


def test_features_beside_those_of_an_earlier_step(stream, capsys):
  assert main(["eval", f"--workdir={stream}@12", f"--merge={stream}@6"]) == 0
  merged = json.loads((stream / "eval" / "12_merged.json").read_text())
  assert set(merged) == {"a/trained/knn", "b/trained/knn"} and all(0 <= value <= 1 for value in merged.values())
  assert "on b:" in capsys.readouterr().out
  assert "--merge: " in refused(capsys, "eval", f"--workdir={stream}@12", f"--merge={stream}@7")


def files(folder):
  return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def checksums(workdir, step):
  return json.loads((workdir / "checkpoints" / str(step) / "meta" / "metadata").read_text())["checksums"]


def test_anneal_leaves_the_trunk_as_it_is(trunk, tmp_path, capsys):
  before = files(trunk)
  command = ["anneal", f"--workdir={trunk}", "--steps=3", f"--out={tmp_path}/branch"]
  assert main(command) == 0
  assert [line["step"] for line in lines(tmp_path / "branch")] == [13, 14, 15]
  rates = [line["train/learning_rate"] for line in lines(tmp_path / "branch")]
  np.testing.assert_allclose(rates, [1e-3 * 0.1 ** (n / 3) for n in range(3)], rtol=1e-5)
  assert files(trunk) == before
  written = files(tmp_path / "branch" / "checkpoints")
  assert main(command) == 0 and files(tmp_path / "branch" / "checkpoints") == written  # nothing left to do
  # Its first step has the trunk's learning rate and moments, so the second begins with the trunk's own weights.
  shutil.copytree(trunk, tmp_path / "trunk")
  assert main(["train", CONFIG, f"--workdir={tmp_path}/trunk", "--config.steps=14"]) == 0
  for mine, own in zip(lines(tmp_path / "branch")[:2], lines(tmp_path / "trunk")[12:], strict=True):
    assert mine["train/loss"] == pytest.approx(own["train/loss"], rel=1e-5)


def test_a_branch_of_another_phase_falls_from_its_value(trunk):
  config = json.loads((trunk / "config.json").read_text())
  found = branch(config, step=5, steps=4, phases="any")["optimizer"]["learning_rate"]
  rate = build.build(found, "schedules", where="")
  assert [float(rate(step)) for step in (5, 9)] == pytest.approx([2e-3, 1e-4])  # the peak is reached at step 5


def test_joint_tasks_have_no_branch_and_cannot_grow(trunk, tmp_path, capsys):
  tasks = [dict(name=name, source=f"npz:{name}.npz", steps=6) for name in "ab"]
  config = json.loads((trunk / "config.json").read_text()) | {"stream": tasks, "continual": {"order": "joint"}}
  with pytest.raises(UserError, match=r"continual\.order: found joint"):
    branch(config, step=12, steps=2)
  (tmp_path / "config.json").write_text(json.dumps(config))
  with pytest.raises(UserError, match="a run of another config: stream"):
    train.check_same(tmp_path, config | {"stream": [*tasks, tasks[0] | {"name": "c"}]}, allow=False)


def test_anneal_refuses(trunk, tmp_path, capsys):
  out = f"--out={tmp_path}/out"
  line = refused(capsys, "anneal", f"--workdir={trunk}@5", "--steps=3", out)
  assert "step 5 is in the cooldown phase" in line and "which begins at step 10 (or --phases=any)" in line
  assert "--steps: found 0" in refused(capsys, "anneal", f"--workdir={trunk}", "--steps=0", out)
  assert "the run itself" in refused(capsys, "anneal", f"--workdir={trunk}", "--steps=3", f"--out={trunk}")
  other = tmp_path / "other"
  shutil.copytree(trunk, other)
  config = json.loads((other / "config.json").read_text())
  config["optimizer"]["learning_rate"] = dict(name="cosine", peak=1e-3, total_steps=20)
  (other / "config.json").write_text(json.dumps(config))
  assert "found cosine, which has no anneal" in refused(capsys, "anneal", f"--workdir={other}", "--steps=3", out)


def test_a_schedule_may_change_where_the_learning_rate_does_not_jump(trunk, tmp_path, capsys):
  copy = tmp_path / "copy"
  shutil.copytree(trunk, copy)
  command = ["train", CONFIG, f"--workdir={copy}", "--config.steps=13"]
  line = refused(capsys, *command, f"{INFINITE}.constant=0.0015")
  assert "at step 12 found 1.5000e-03, expected 1.0000e-03" in line and "--allow-schedule-change" in line
  assert len(lines(copy)) == 12
  capsys.readouterr()
  assert main([*command, f"{INFINITE}.constant=0.001005"]) == 0
  assert "the learning rate at step 12 was 1.0000e-03 and is 1.0050e-03" in capsys.readouterr().err
  assert lines(copy)[-1]["train/learning_rate"] == pytest.approx(0.001005)
  assert "optimizer.b2" in refused(capsys, *command, "--config.optimizer.b2=0.9", "--allow-schedule-change")


def test_parts_are_loaded_made_anew_or_frozen_and_the_step_begins_again(trunk, tmp_path, capsys):
  command = ["train", CONFIG, f"--from={trunk}@12", "--config.init_step=restart", "--config.steps=2"]
  rules = "[('^params/encoder/patch_embed','freeze'),('decoder','reinit')]"
  narrow = "--config.objective.decoder_width=8"  # it could not be loaded
  assert main([*command, f"--workdir={tmp_path}/parts", f"--config.init={rules}", narrow]) == 0
  said = capsys.readouterr().err
  assert "leaves loaded" in said and "made anew (" in said
  assert [(line["step"], line["train/phase"]) for line in lines(tmp_path / "parts")] == [(1, 0), (2, 0)]
  before, after = checksums(trunk, 12), checksums(tmp_path / "parts", 2)
  frozen = [name for name in after if name.startswith("params/encoder/patch_embed")]
  moved = [name for name in after if name.startswith("params/encoder/blocks") and name.endswith("kernel")]
  assert frozen and all(after[name] == before[name] for name in frozen)
  assert moved and all(after[name] != before[name] for name in moved)
  line = refused(capsys, *command, f"--workdir={tmp_path}/none", "--config.init=[('^nothing','reinit')]")
  assert "init: '^nothing' matches no path" in line
  line = refused(
    capsys,
    *command,
    f"--workdir={tmp_path}/wide",
    "--config.objective.decoder_width=8",
    "--config.init=[('^rng','reinit')]",
  )
  assert "does not fit: params/decoder" in line and "expected float32" in line and "more" in line


def test_another_run_goes_on_with_other_data_from_their_beginning(trunk, data, tmp_path, capsys):
  other = [f"--from={trunk}@12", f"--config.data.source=npz:{data}/b.npz", f"--workdir={tmp_path}/on"]
  for _ in range(2):  # the second time it has nothing to do, and the config is the same
    assert main(["train", CONFIG, "--config.steps=14", *other]) == 0
  assert [line["step"] for line in lines(tmp_path / "on")] == [13, 14]
  line = refused(capsys, "train", CONFIG, f"--workdir={tmp_path}/short", f"--from={trunk}@12", "--config.steps=12")
  assert "steps: found 12, expected more than the 12 of the run that goes on" in line
  assert json.loads((tmp_path / "on" / "config.json").read_text())["data"]["begin"] == 12
