"""The tables of docs/continual.md: mean and range over seeds of what streams of tasks ended with.

    python benchmarks/continual_table.py runs/continual_mae --metrics=knn,linear_probe
    python benchmarks/continual_table.py runs/continual_clip --metrics=i2t_r@5+t2i_r@5 --each

A metric of several scores, a + b, is their mean. --each also prints the seeds one by one. The folder holds the work
directories VARIANT-SEED of `ssljax train --config=configs/continual_X.py:VARIANT --config.seed=SEED`.
"""

import argparse
import collections
import json
import pathlib
import statistics

MEASURES = ("average", "average_seen", "forgetting", "backward_transfer", "forward_transfer")


def read(folder, metric):
  """Returns {variant: {measure: numbers of the seeds}} and {variant: matrices of the seeds}."""
  found = collections.defaultdict(lambda: collections.defaultdict(list))
  matrices = collections.defaultdict(list)
  for file in sorted(folder.glob("*-*/eval/final.json")):
    variant = file.parts[-3].rpartition("-")[0]
    scores, known = json.loads(file.read_text()), json.loads((file.parent / "continual.json").read_text())
    for measure in MEASURES:
      found[variant][measure].append(statistics.mean(scores[f"continual/{m}/{measure}"] for m in metric.split("+")))
    rows = known["rows"].items()
    mean = {
      row: [statistics.mean(x) for x in zip(*(at[m] for m in metric.split("+")), strict=True)] for row, at in rows
    }
    matrices[variant].append({"tasks": known["tasks"], "rows": mean})
  return found, matrices


def spread(values):
  """Returns "mean [smallest to largest]" of the seeds."""
  return f"{statistics.mean(values):.3f} [{min(values):.3f} to {max(values):.3f}]"


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("folder", type=pathlib.Path)
  parser.add_argument("--metrics", required=True)
  parser.add_argument("--each", action="store_true")
  options = parser.parse_args()
  for metric in options.metrics.split(","):
    found, matrices = read(options.folder, metric)
    print(f"\n| {metric} | seeds | {' | '.join(measure.replace('_', ' ') for measure in MEASURES)} |")
    print("|---" * (len(MEASURES) + 2) + "|")
    for variant, measures in found.items():
      cells = (spread(measures[measure]) for measure in MEASURES)
      print(f"| {variant} | {len(measures['average'])} | {' | '.join(cells)} |")
      for number in range(len(measures["average"]) if options.each else 0):
        print(f"| {variant} | one | {' | '.join(f'{measures[measure][number]:.3f}' for measure in MEASURES)} |")
    for variant, runs in matrices.items():
      print(f"\n{variant}, {metric} after each task (rows) on each (columns {', '.join(runs[0]['tasks'])}), means")
      for row in runs[0]["rows"]:
        columns = zip(*(run["rows"][row] for run in runs), strict=True)
        print(f"| {row} | {' | '.join(f'{statistics.mean(column):.3f}' for column in columns)} |")


main()
