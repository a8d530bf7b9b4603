"""The table of docs/methods.md: every variant of configs/methods.py, three seeds, the same data, steps and batch.

    python benchmarks/methods.py runs/methods                     trains what is missing there, then prints the table
    python benchmarks/methods.py runs/methods --only=byol,dino --seeds=0
    python benchmarks/methods.py runs/methods --print             prints the table of what is there

A run that was stopped goes on. The first method's runs measure raw pixels and the untrained network, too. Images/s are
those of the fastest seed.
"""

import argparse
import importlib.util
import json
import pathlib
import statistics
import subprocess
import sys

from scipy import stats

CONFIG = pathlib.Path(__file__).parents[1] / "configs" / "methods.py"
COLUMNS = {"knn": "kNN", "linear_probe": "linear probe", "rankme": "RankMe"}


def variants():
  """Returns the names of the variants of configs/methods.py."""
  spec = importlib.util.spec_from_file_location("methods", CONFIG)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return list(module.METHODS)


def train(workdir, method, *overrides):
  """Trains one variant with some settings changed, unless it is done."""
  if (workdir / "eval" / "final.json").is_file():
    return
  command = [sys.executable, "-m", "ssljax", "train", f"--config={CONFIG}:{method}", f"--workdir={workdir}", *overrides]
  workdir.parent.mkdir(parents=True, exist_ok=True)
  print(workdir.name, flush=True)
  with open(f"{workdir}.log", "a") as log:
    code = subprocess.run(command, stdout=log, stderr=log, check=False).returncode
  if code:
    print(f"  failed with exit code {code}: {workdir}.log", flush=True)


def read(folder):
  """Returns {method: the scores of its seeds}."""
  found = {method: sorted(folder.glob(f"{method}-[0-9]*/eval/final.json")) for method in variants()}
  return {method: [json.loads(file.read_text()) for file in files] for method, files in found.items() if files}


def cell(values):
  """Returns "mean [smallest to largest]" of the seeds."""
  digits = 1 if max(values) >= 10 else 3
  return f"{statistics.mean(values):.{digits}f} [{min(values):.{digits}f} to {max(values):.{digits}f}]"


def row(name, scores, kind):
  """Returns one line of the table: a representation `kind` of the runs with these scores."""
  cells = [cell([one[f"{kind}/{key}"] for one in scores]) for key in COLUMNS]
  rates = [one["train/examples_per_second"] for one in scores] if kind == "trained" else []
  cells.append(f"{max(rates):.0f}" if rates else "")
  return f"| {name} | {len(scores)} | {' | '.join(cells)} |"


def print_agreement(found):
  """Prints how RankMe orders the rows of {name: (RankMe, linear probe, kNN)} beside how the others do."""
  if len(found) < 3:
    return
  ranks, *others = zip(*found.values(), strict=True)
  for name, values in zip(("the linear probe", "kNN"), others, strict=True):
    result = stats.spearmanr(ranks, values)
    print(f"Spearman of RankMe and {name}: {result.statistic:.3f} (p = {result.pvalue:.2g}, {len(ranks)} rows)")


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("folder", type=pathlib.Path)
  parser.add_argument("--only", default="")
  parser.add_argument("--seeds", default="0,1,2")
  parser.add_argument("--print", action="store_true", help="train nothing")
  options = parser.parse_args()
  first, *_ = names = variants()
  for seed in options.seeds.split(",") if not options.print else ():
    for method in options.only.split(",") if options.only else names:
      baselines = "on" if method == first else "off"
      changed = [f"--config.seed={seed}", f"--config.evaluation.baselines={baselines}"]
      train(options.folder / f"{method}-{seed}", method, *changed)
  found = read(options.folder)
  if not found:
    return
  print(f"| method | seeds | {' | '.join(COLUMNS.values())} | images/s |")
  print("|---" * (len(COLUMNS) + 3) + "|")
  if first in found:
    print(row("raw pixels", found[first][:1], "raw"))
    print(row("untrained", found[first], "untrained"))
  for method, scores in found.items():
    print(row(method, scores, "trained"))
  mean = lambda scores, key: statistics.mean(one[f"trained/{key}"] for one in scores)
  keys = ("rankme", "linear_probe", "knn")
  print_agreement({method: [mean(scores, key) for key in keys] for method, scores in found.items()})


if __name__ == "__main__":
  main()
