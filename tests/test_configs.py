"""Every recipe in configs/: its resolved form is pinned, and shrunk it makes two steps and its evaluators."""

import json
import pathlib

import jax
import numpy as np
import pytest

from ssljax.commands.configs import load_config
from ssljax.training.config import parse, resolve_durations
from ssljax.training.evaluation import Measure
from ssljax.training.loop import start, train
from ssljax.training.run import assemble
from ssljax.training.text_evaluation import TextMeasure

CONFIGS = sorted((pathlib.Path(__file__).parents[1] / "configs").glob("*.py"))
GOLDEN = pathlib.Path(__file__).parent / "golden"
IMAGENET = 1_281_167


def smoke(config, source):
  """Returns the config small enough for seconds: same names and structure, tiny sizes."""
  config = json.loads(json.dumps(config))
  if "text" in config["data"]:
    return smoke_text(config, source[1])
  source = source[0]
  config["data"] |= {"source": source, "split": "train", "batch_size": 8, "image_size": 20, "threads": 1}
  config["augment"]["size"] = 16
  encoder = config["objective"]["encoder"]
  if encoder["name"] == "vit.ViT":
    encoder |= {"variant": "Ti", "width": 16, "depth": 1, "heads": 2, "patch": 8, "image_size": 16}
  else:
    encoder |= {"depth": 18, "stem": "cifar"}
  for key in ("decoder_width", "decoder_depth", "decoder_heads"):
    config["objective"] |= {key: {"decoder_width": 8}.get(key, 1)} if key in config["objective"] else {}
  schedule = config["optimizer"]["learning_rate"]
  schedule |= {"warmup_steps": 1, "total_steps": 2}
  config["evaluation"] |= {"train": "train", "test": "test", "batch_size": 8, "every": 1}
  return config | {"steps": 2, "log_every": 1}


def smoke_text(config, source):
  """The same for text: bytes, short rows, a narrow model."""
  config["data"] |= {"source": source, "split": "train", "batch_size": 8, "threads": 1}
  text = config["data"]["text"]
  text |= {"tokenizer": "bytes", "inputs_length": 48}
  text |= {"targets_length": 40, "row_inputs": None, "row_targets": None} if "targets_length" in text else {}
  model = config["objective"]["model"]
  model |= {"vocab_size": 600, "width": 16, "depth": 1, "heads": 2, "head_width": 8, "hidden": 16}
  config["evaluation"] |= {"test": "test", "batch_size": 8, "every": 1}
  config["evaluation"]["evals"]["denoising"]["max_rows"] = 8
  return config | {"steps": 2, "log_every": 1}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  file = tmp_path_factory.mktemp("configs") / "pictures.npz"
  pictures = np.random.default_rng(0).integers(0, 256, (60, 20, 20, 3), dtype=np.uint8)
  np.savez(file, image=pictures, label=np.arange(60) % 3)
  lines = [json.dumps({"text": f"document {n} says " + "la " * (n % 40)}) for n in range(200)]
  (file.parent / "texts.jsonl").write_text("\n".join(lines))
  return f"npz:{file}", f"text:{file.parent}/texts.jsonl"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_resolved_form(path):
  """After a change that is meant: delete the file in tests/golden, run this test, and look at the difference."""
  config = load_config(str(path))
  resolved = resolve_durations(config, batch_size=config["data"]["batch_size"], num_examples=IMAGENET)
  parse(resolved)
  golden = GOLDEN / f"{path.stem}.json"
  if not golden.exists():
    golden.parent.mkdir(exist_ok=True)
    golden.write_text(json.dumps(resolved, indent=2, sort_keys=True) + "\n")
    pytest.fail(f"wrote {golden}: look at it and commit it")
  assert resolved == json.loads(golden.read_text())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_two_steps_and_evaluators(path, source, tmp_path, monkeypatch):
  monkeypatch.setenv("SSLJAX_CACHE", str(tmp_path / "cache"))
  run = assemble(smoke(load_config(str(path)), source))
  text = run.job.data.text is not None
  measure = TextMeasure(run) if text else Measure(run)
  state = train(run, start(run, tmp_path), tmp_path, measure=measure)
  assert int(state.step) == 2
  lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
  evaluated = next(line for line in lines if ("eval/X/bits_per_byte" if text else "eval/knn") in line)
  assert all(np.isfinite(value) for line in lines for value in line.values())
  assert ("eval/R/bits_per_byte" if text else "eval/rankme") in evaluated
  assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(state.params))
