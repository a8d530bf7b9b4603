"""The command line: subcommands, overrides, exit codes.

Exit codes: 0 done, 2 a mistake of the user's (one line says which), 75 preempted (start me again), 1 anything else.
Nothing heavy is imported before a subcommand needs it.
"""

import argparse
import importlib
import re
import sys
from collections.abc import Sequence
from typing import Any

from ssljax.errors import UserError

_OVERRIDE = re.compile(r"^--config\.([A-Za-z0-9_.]+)(?:=(.*))?$", re.DOTALL)


def main(arguments: Sequence[str] | None = None) -> int:
  """Returns the exit code of the command line `arguments` (default: the process's own)."""
  arguments = list(sys.argv[1:] if arguments is None else arguments)
  try:
    overrides, rest = _split_overrides(arguments)
    options = _parser().parse_args(rest)
    if overrides and not hasattr(options, "config"):
      raise UserError(f"--config.{overrides[0][0]}: {options.command} takes no config")
    options.overrides = overrides
    module = importlib.import_module(f"ssljax.commands.{options.module}")
    return module.run(options) or 0
  except UserError as error:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print("interrupted; the last checkpoint stands, the same command goes on from it", file=sys.stderr)
    return 130


def _split_overrides(arguments: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
  """Returns (overrides, the other arguments); both --config.a=1 and --config.a 1 are taken."""
  overrides, rest, words = [], [], iter(arguments)
  for word in words:
    match = _OVERRIDE.match(word)
    if match is None:
      rest.append(word)
      continue
    value = match.group(2) if match.group(2) is not None else next(words, None)
    if value is None:
      raise UserError(f"{word}: expected {word}=VALUE")
    overrides.append((match.group(1), value))
  return overrides, rest


class _Parser(argparse.ArgumentParser):
  """argparse whose errors are this program's: one line, exit code 2."""

  def error(self, message: str) -> Any:
    raise UserError(f"{message} (see: {self.prog} --help)")


def _parser() -> argparse.ArgumentParser:
  parser = _Parser(prog="ssljax", description="Pretraining without labels in JAX.", allow_abbrev=False)
  commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

  train = _command(commands, "train", "train", "start a run; the same command again resumes it")
  train.add_argument(
    "--config", required=True, metavar="FILE[:VARIANT]", help="a recipe; override keys by --config.a.b=v"
  )
  train.add_argument("--workdir", required=True, metavar="DIR", help="checkpoints, metrics, evaluations, report")
  train.add_argument("--from", dest="origin", metavar="DIR[@STEP]", help="start from the whole state of another run")
  train.add_argument(
    "--stop-on-collapse", action="store_true", help="end the run, its state saved, when the config's alarm is raised"
  )
  _allowances(train)

  anneal = _command(commands, "anneal", "anneal", "anneal a copy of a run's constant phase; the run stays as it is")
  anneal.add_argument("--workdir", required=True, metavar="DIR[@STEP]", help="the run; default: its newest checkpoint")
  anneal.add_argument("--steps", required=True, type=int, metavar="N", help="length of the anneal")
  anneal.add_argument("--out", required=True, metavar="DIR2", help="the branch; the same command again resumes it")
  anneal.add_argument(
    "--phases", choices=("constant", "any"), default="constant", help="where it may begin (default: constant)"
  )
  _allowances(anneal)

  evaluate = _command(commands, "eval", "evaluate", "measure the features of a run")
  evaluate.add_argument("--workdir", required=True, metavar="DIR[@STEP]")
  evaluate.add_argument(
    "--evals", metavar="A,B", help="which evaluators: the config's, or others by name (finetune); default: the config's"
  )
  evaluate.add_argument(
    "--config", metavar="FILE[:VARIANT]", help="whose evaluation is taken in place of the run's; it may be overridden"
  )
  evaluate.add_argument(
    "--merge",
    metavar="DIR2[@STEP]",
    help="measure the features beside those of this run, such as the one before (ADAM)",
  )

  plan = _command(commands, "plan", "plan", "does a config fit hardware that is not here, and what would a step cost?")
  plan.add_argument("--config", required=True, metavar="FILE[:VARIANT]")
  plan.add_argument(
    "--topology", required=True, metavar="NAME", help="v5e:16x16, v5p:4x4x4, h100:4x8 (hosts x GPUs), cpu:8"
  )
  plan.add_argument("--slices", type=int, default=1, metavar="N", help="TPU slices of that shape (default 1)")
  plan.add_argument(
    "--fit", action="store_true", help="find the largest batch for each choice of remat; compiles often"
  )
  plan.add_argument("--json", action="store_true", help="print one JSON object")

  export = _command(commands, "export", "export", "write a run's networks as another library's folder")
  export.add_argument("--workdir", required=True, metavar="DIR[@STEP]")
  _library(export)
  export.add_argument("--out", required=True, metavar="DIR2", help="a new folder; written whole or not at all")
  export.add_argument(
    "--weights",
    choices=("auto", "student", "ema", "teacher"),
    default="auto",
    help="default: the teacher's where there is one, else the moving average where one is kept, else the trained ones",
  )

  importing = _command(commands, "import", "importing", "make a run at step 0 of another library's weights")
  importing.add_argument("--config", required=True, metavar="FILE[:VARIANT]", help="what the run is to be")
  _library(importing)
  importing.add_argument("--from", dest="origin", required=True, metavar="PATH", help="a folder, or a file of weights")
  importing.add_argument("--workdir", required=True, metavar="DIR", help="a new one; train --from=DIR goes on from it")

  data = commands.add_parser("data", help="list, preview or prepare data", allow_abbrev=False)
  data_commands = data.add_subparsers(dest="data_command", required=True, metavar="COMMAND", parser_class=_Parser)
  _command(data_commands, "list", "data_list", "sources and the real sets that come with packages")
  preview = _command(
    data_commands, "preview", "data_preview", "show what the model sees: augmented views, or corrupted text"
  )
  preview.add_argument("--config", required=True, metavar="FILE[:VARIANT]")
  preview.add_argument("--out", metavar="FILE.png", help="where pictures are drawn; text is printed")
  preview.add_argument("--rows", type=int, default=8, help="pictures shown (default 8)")
  prepare = _command(data_commands, "prepare", "data_prepare", "write ArrayRecord shards with a manifest")
  prepare.add_argument(
    "--source", required=True, metavar="KIND:WHERE", help="folder:DIR, npz:FILE, pairs:FILE.jsonl, webdataset:GLOB"
  )
  prepare.add_argument("--out", required=True, metavar="DIR")
  prepare.add_argument("--shards", type=int, default=8, help="files a split (default 8)")
  prepare.add_argument("--licence", help="written to the manifest (default: what the source tells)")
  tokenizer = _command(data_commands, "tokenizer", "data_tokenizer", "learn a SentencePiece vocabulary from texts")
  tokenizer.add_argument("--source", required=True, metavar="KIND:WHERE", help="text:GLOB, embedded:python, tfds:NAME")
  tokenizer.add_argument("--vocab_size", "--vocab-size", type=int, required=True, metavar="N", help="ids")
  tokenizer.add_argument("--out", required=True, metavar="FILE.model")
  tokenizer.add_argument("--split", default="train", help="the texts to learn from (default train)")
  tokenizer.add_argument(
    "--max_bytes", "--max-bytes", type=int, default=50_000_000, metavar="N", help="of text (default 50,000,000)"
  )

  clusters = _command(data_commands, "clusters", "data_clusters", "cluster a run's training pictures (data.clusters)")
  clusters.add_argument("--workdir", required=True, metavar="DIR[@STEP]", help="the run whose features are clustered")
  clusters.add_argument("--clusters", required=True, type=int, metavar="K", help="as many as a batch is to hold")
  clusters.add_argument("--out", required=True, metavar="FILE.npz")

  preflight = _command(commands, "preflight", "preflight", "what would stop a run: its folder, data, memory")
  preflight.add_argument("--config", required=True, metavar="FILE[:VARIANT]")
  preflight.add_argument("--workdir", required=True, metavar="DIR")
  preflight.add_argument("--topology", metavar="NAME", help="plan for this hardware too, such as v5e:16x16")
  preflight.add_argument("--slices", type=int, default=1, metavar="N")

  _command(commands, "doctor", "doctor", "devices, versions and clocks, of all processes where there are several")

  report = _command(commands, "report", "report", "one self-contained HTML page of one or several runs")
  report.add_argument("dirs", nargs="+", metavar="DIR")
  report.add_argument("--out", metavar="FILE.html", help="default: DIR/report.html of the first")

  listing = _command(commands, "list", "listing", "what a config can name")
  listing.add_argument(
    "what", nargs="?", metavar="objectives|models|augment|optim|schedules|evaluators|sources|configs"
  )
  return parser


def _library(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    "--format", required=True, metavar="NAME", help="timm, torchvision, huggingface, open_clip or safetensors"
  )
  parser.add_argument("--class", dest="kind", metavar="NAME", help="the class there; default: the first that fits")


def _allowances(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("--allow-config-change", action="store_true", help="resume although the config differs")
  parser.add_argument(
    "--allow-schedule-change", action="store_true", help="resume although the learning rate jumps by more than 1 %%"
  )


def _hosts(parser: argparse.ArgumentParser) -> None:
  hosts = parser.add_argument_group(
    "several processes", "SLURM, TPU VMs, Kubernetes and Open MPI are found by themselves"
  )
  hosts.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 listens")
  hosts.add_argument("--num-processes", type=int, metavar="N")
  hosts.add_argument("--process-id", type=int, metavar="I", help="which of them this is, from 0")
  hosts.add_argument("--join-timeout", type=float, default=300, metavar="SECONDS", help="to wait for all (default 300)")
  hosts.add_argument(
    "--lost-timeout", type=float, default=60, metavar="SECONDS", help="without a sign of life (default 60)"
  )


def _command(commands: Any, name: str, module: str, text: str) -> argparse.ArgumentParser:
  parser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
  parser.set_defaults(module=module)
  if module in (
    "train",
    "anneal",
    "evaluate",
    "data_preview",
    "data_clusters",
    "doctor",
    "preflight",
    "export",
    "importing",
  ):
    parser.add_argument("--cpu-devices", type=int, metavar="N", help="devices the CPU shows (default: its cores)")
  if module in ("train", "anneal", "evaluate", "doctor"):
    _hosts(parser)
  return parser
