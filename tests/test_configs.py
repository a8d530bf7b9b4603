"""Every recipe in configs/: its resolved form is pinned, and shrunk it makes two steps and its evaluators."""

import json
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

from ssljax import build, checkpoint
from ssljax.commands import final
from ssljax.commands.configs import load_config
from ssljax.errors import UserError
from ssljax.models import resnet
from ssljax.training.config import parse, resolve_durations
from ssljax.training.health import slice_of
from ssljax.training.loop import start, train
from ssljax.training.run import assemble

CONFIGS = sorted((pathlib.Path(__file__).parents[1] / "configs").glob("*.py"))
GOLDEN = pathlib.Path(__file__).parent / "golden"
IMAGENET = 1_281_167


def smoke(config, source):
  """Returns the config small enough for seconds: same names and structure, tiny sizes."""
  config = json.loads(json.dumps(config))
  pairs, cloze = "captions" in config["data"], "ict" in config["data"]
  text = "text" in config["data"]
  source = source[2 if pairs else text or cloze]
  config["data"] |= {"source": source, "split": "train", "batch_size": 8, "threads": 1}
  if config.get("stream"):
    config["data"]["source"], config["continual"]["anneal_steps"] = None, None
    config["stream"] = [task | {"source": source, "steps": 1} for task in config["stream"][:2]]
  else:
    config["steps"] = 2
  config["log_every"] = 1
  if pairs:
    return smoke_pairs(config)
  if cloze:
    return smoke_cloze(config)
  return smoke_text(config) if text else smoke_pictures(config)


def smoke_schedule(config):
  schedule = config["optimizer"]["learning_rate"]
  if isinstance(schedule, dict):
    schedule |= {"warmup_steps": 1, "total_steps": 2} if "total_steps" in schedule else {}
    schedule |= {"boundaries": [1]} if "boundaries" in schedule else {}


def smoke_pairs(config):
  """The same for pairs: two small towers, captions of bytes."""
  config["data"] |= {"image_size": 20}
  config["data"]["captions"] |= {"tokenizer": "bytes", "length": 12}
  config["augment"] |= {"size": 16} | ({"local_size": 8} if "local_size" in config["augment"] else {})
  objective = config["objective"]
  towers = objective["model"] if "model" in objective else {"image": objective, "text": objective["text"]}
  image, text = (towers[key]["encoder"] for key in ("image", "text"))
  image |= small_encoder(image)
  text |= {"vocab_size": 259, "length": 12, "width": 16, "depth": 1, "heads": 2}
  text |= {"eos": 1} if text["name"] == "text_tower.TextTower" and text.get("pooling", "eos") == "eos" else {}
  for key in ("image", "text"):
    towers[key] |= {"width": 16} if towers[key].get("width") else {}
  objective |= {"prototypes": 8, "head_hidden": 8, "head_bottleneck": 4} if objective["name"] == "tips.TIPS" else {}
  smoke_schedule(config)
  config["evaluation"] |= {"train": "train", "test": "test", "batch_size": 8, "every": 1}
  return config


def small_encoder(encoder):
  """Returns what makes an encoder of pictures small."""
  if encoder["name"] == "vit.ViT":
    return {"variant": "Ti", "width": 16, "depth": 1, "heads": 2, "patch": 8, "image_size": 16}
  return {"depth": 18, "stem": "cifar"}


def smoke_pictures(config):
  """The same for pictures: small ones, a small encoder."""
  config["data"]["image_size"] = 20
  smoke_views(config["augment"])
  encoder = config["objective"]["encoder"]
  encoder |= small_encoder(encoder)
  for objective in (config["objective"], *config["objective"].get("tasks", {}).values()):
    smoke_heads(objective)
  smoke_schedule(config)
  config["evaluation"] |= {"train": "train", "test": "test", "batch_size": 8, "every": 1}
  if config.get("health"):
    config["health"] |= {"every": 1, "examples": 8}
  return config


def smoke_heads(objective):
  """The same for what an objective puts around its encoder."""
  sizes = dict.fromkeys(("projector_hidden", "projector_width", "projector_out", "predictor_hidden", "queue"), 16)
  sizes |= dict(decoder_width=8, decoder_depth=1, decoder_heads=1, prototypes=8, equivariant=8)
  objective |= {key: size for key, size in sizes.items() if objective.get(key)}
  objective |= {"head_hidden": 8, "head_bottleneck": 4} if objective["name"] in ("dino.DINO", "ibot.iBOT") else {}
  objective |= {"words": 16, "border": 0, "window": 2} if objective["name"] == "obow.OBoW" else {}


def smoke_views(augment):
  """The same for views, and for stages of them: the first stage is the first step."""
  views = augment.get("views", augment)
  views |= {"size": 16} | ({"local_size": 8} if "local_size" in views else {})
  if "stages" in augment:
    augment["stages"] = [augment["stages"][0] | {"until": 1, "bandwidth": 8}]


def smoke_text(config):
  """The same for text: bytes, short rows, a narrow model."""
  text = config["data"]["text"]
  text |= {"tokenizer": "bytes", "inputs_length": 48}
  text |= {"row_inputs": None, "row_targets": None}
  text |= {"targets_length": 40} if "targets_length" in text else {}
  model = config["objective"]["model"]
  model |= {"vocab_size": 600, "width": 16, "depth": 1, "heads": 2, "head_width": 8, "hidden": 16}
  config["evaluation"] |= {"test": "test", "batch_size": 8, "every": 1}
  config["evaluation"]["evals"]["denoising"]["max_rows"] = 8
  return config


def smoke_cloze(config):
  """The same for queries and blocks: bytes, a small encoder."""
  config["data"]["ict"] |= {"tokenizer": "bytes", "query_length": 16, "block_length": 48}
  config["objective"]["encoder"] |= {"vocab_size": 259, "length": 48, "width": 16, "heads": 2}
  smoke_schedule(config)
  config["evaluation"] |= {"batch_size": 8, "every": 1}
  return config


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  file = tmp_path_factory.mktemp("configs") / "pictures.npz"
  pictures = np.random.default_rng(0).integers(0, 256, (60, 20, 20, 3), dtype=np.uint8)
  np.savez(file, image=pictures, label=np.arange(60) % 3)
  lines = [json.dumps({"text": f"document {n} says " + "la " * (n % 40)}) for n in range(200)]
  (file.parent / "texts.jsonl").write_text("\n".join(lines))
  pairs = []
  for number, picture in enumerate(pictures):
    Image.fromarray(picture).save(file.with_name(f"{number}.png"))
    pairs.append(
      {"image": f"{number}.png", "captions": [f"number {number}", f"no. {number}"], "label": f"c{number % 3}"}
    )
  file.with_name("pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
  return f"npz:{file}", f"text:{file.parent}/texts.jsonl", f"pairs:{file.parent}/pairs.jsonl"


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


def test_every_method_side_by_side_is_one():
  file = str(next(path for path in CONFIGS if path.stem == "methods"))
  with pytest.raises(UserError, match="expected one of simclr,") as error:
    load_config(f"{file}:none")
  for method in str(error.value).rpartition("one of ")[2].split(", "):
    assert_builds(f"{file}:{method}")


def test_the_autoencoder_before_gsimclr_is_one():
  assert_builds(f"{next(path for path in CONFIGS if path.stem == 'gsimclr_resnet18')}:autoencoder")


def assert_builds(path):
  config = load_config(path)
  parse(resolve_durations(config, batch_size=config["data"]["batch_size"], num_examples=IMAGENET))
  for part, kind in (("objective", "objectives"), ("augment", "augment")):
    build.build(config[part], kind, where=part)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_two_steps_and_evaluators(path, source, tmp_path, monkeypatch):
  monkeypatch.setenv("SSLJAX_CACHE", str(tmp_path / "cache"))
  monkeypatch.setitem(resnet.STAGES, 18, (1, 1))  # the same blocks, in a fraction of the time of compilation
  # What states hold is saved and checked elsewhere; compiling the checksums would be a tenth of the time here.
  monkeypatch.setattr(checkpoint, "_checksums", lambda state: jax.tree.map(lambda _: np.zeros(2, np.uint32), state))
  # One device: what eight do is the contract's and the loop's to test, and compiles two times longer.
  run = assemble(smoke(load_config(str(path)), source), devices=jax.devices()[:1])
  text = run.job.data.text is not None
  measure = final.measure_of(run.tasks()[0])
  state = train(run, start(run, tmp_path), tmp_path, measure=measure, health=slice_of(run))
  assert int(state.step) == 2
  lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
  denoising = run.job.evaluation.evals.get("denoising", {})
  groups = "C" if denoising.get("mixture") == "causal_lm" else "RSX"
  expected = [f"eval/{group}/bits_per_byte" for group in groups] if text else ["eval/knn", "eval/rankme"]
  expected = ["eval/i2t_r@1", "eval/t2i_chance@5"] if run.captioner else expected
  expected = ["eval/cloze_r@10", "eval/lead_ndcg@10"] if run.job.data.ict else expected
  assert any(all(key in line for key in expected) for line in lines)
  assert any("health/embedding_rankme" in line for line in lines) == (run.job.health is not None)
  assert all(np.isfinite(value) for line in lines for value in line.values())
  assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(state.params))
