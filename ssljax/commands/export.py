"""`ssljax export`: the networks of a run as another library's folder, if that library computes the same numbers."""

import argparse
import functools
import json
import pathlib
from typing import Any

import numpy as np

from ssljax import __version__, distributed, runtime
from ssljax.commands import workdir as workdirs
from ssljax.errors import UserError, nearest


def run(options: argparse.Namespace) -> int:
  """Returns the exit code of `ssljax export`."""
  folder, step = workdirs.split_step(options.workdir, "--workdir")
  config = {**workdirs.read_config(folder), "evaluation": None}
  out = pathlib.Path(options.out)
  from ssljax.export import folder as folders
  from ssljax.export import registry

  if options.format not in registry.FORMATS:
    raise UserError(f"--format: nothing is called {nearest(options.format, registry.FORMATS)}")
  folders.check_free(out)
  runtime.start(cpu_devices=options.cpu_devices)
  from ssljax.export import parts

  modules = parts.modules_of(_objective(config))
  peer = registry.choose(modules, format=options.format, name=options.kind)
  peer.check_installed()
  return _write(out, peer, modules, config, (folder, step), options.weights)


def _objective(config: dict[str, Any]) -> Any:
  from ssljax import build

  return build.build(config["objective"], "objectives", where="objective")


def _write(
  out: pathlib.Path, peer: Any, modules: Any, config: dict[str, Any], place: tuple[pathlib.Path, int | None], which: Any
) -> int:
  from ssljax.commands.evaluate import restored
  from ssljax.export import folder as folders
  from ssljax.export import inputs, parts
  from ssljax.export.peer import EXAMPLES, Preprocessing

  assembled, step, state = restored(*place, None, "--workdir")
  arrays, which = parts.take(assembled.objective, state, which)
  facts = {
    "objective": config["objective"]["name"],
    "step": step,
    "version": __version__,
    "weights": {"student": "trained", "ema": "averaged", "teacher": "teacher's"}[which],
    "examples": EXAMPLES,
    "evals": _measured(place[0], step, last=step == config["steps"]),
    "config": json.dumps(dict(assembled.config), indent=2),
  }
  if not distributed.is_main():
    return 0
  preprocessing = Preprocessing.of(assembled.augment)
  given = inputs.real(assembled, EXAMPLES)
  beside = functools.partial(_write_vocabulary, run=assembled, peer=peer)
  seen = folders.write(out, peer, modules, arrays, given, preprocessing=preprocessing, facts=facts, beside=beside)
  print(f"{peer.format} {peer.name}, the {facts['weights']} weights of step {step}")
  for name, size in seen.differences.items():
    print(f"largest difference of {name}: {size:.1e}")
  print(f"written to {out}")
  return 0


def _write_vocabulary(folder: pathlib.Path, *, run: Any, peer: Any) -> dict[str, Any]:
  """Returns what the card tells of a text run's vocabulary, after its files were written; of pictures nothing."""
  from ssljax.data.corpus import Corpus
  from ssljax.export import vocabulary_files
  from ssljax.export.hf_text import TextModel
  from ssljax.export.peer import EXAMPLES

  if not isinstance(run.source, Corpus):
    return {}
  vocabulary, documents = run.source.vocabulary, run.source.documents
  if not isinstance(peer, TextModel):
    return {"tokenizer": vocabulary_files.write_own(folder, vocabulary)}
  vocabulary_files.write_config(folder, peer.ids(vocabulary))
  texts = [documents.read(row) for row in range(min(EXAMPLES, len(documents)))]
  found = vocabulary_files.write(folder, vocabulary, texts, ends=peer.ends)
  print(f"tokenizer: {found.says}")
  return {"tokenizer": found}


def _measured(folder: pathlib.Path, step: int, *, last: bool) -> dict[str, float]:
  """Returns the scores at a step, where it was evaluated; those of the run's end are in final.json."""
  files = [folder / "eval" / name for name in (f"{step}.json", "final.json")[: 1 + last]]
  found = next((json.loads(file.read_text("utf-8")) for file in files if file.is_file()), {})
  return {key: value for key, value in found.items() if isinstance(value, float) and np.isfinite(value)}
