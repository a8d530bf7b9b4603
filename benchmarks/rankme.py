"""Does RankMe, which reads no labels, order settings as the linear probe does? One method, ten settings, Spearman.

    python benchmarks/rankme.py runs/rankme              trains what is missing there, then prints table and Spearman
    python benchmarks/rankme.py runs/rankme --seeds=0    one seed of three

Each setting changes one number of configs/methods.py:simclr. Source of the question: Garrido et al., "RankMe: Assessing
the downstream performance of pretrained self-supervised representations by their rank", 2023, arXiv 2210.02885.
"""

import argparse
import json
import pathlib
import statistics

from methods import cell, print_agreement, train

BASE = "simclr"
SETTINGS = {
  "as it is": (),
  "temperature 0.05": ("objective.temperature=0.05",),
  "temperature 0.1": ("objective.temperature=0.1",),
  "temperature 0.5": ("objective.temperature=0.5",),
  "temperature 1": ("objective.temperature=1.0",),
  "learning rate 1.5e-4": ("optimizer.learning_rate.peak=1.5e-4",),
  "learning rate 5e-4": ("optimizer.learning_rate.peak=5e-4",),
  "learning rate 6e-3": ("optimizer.learning_rate.peak=6e-3",),
  "no jitter": ("augment.strength=0.0",),
  "jitter twice as strong": ("augment.strength=1.0",),
}
SCORES = ("rankme", "linear_probe", "knn")


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("folder", type=pathlib.Path)
  parser.add_argument("--seeds", default="0,1,2")
  options = parser.parse_args()
  seeds = options.seeds.split(",")
  found = {}
  for name, changes in SETTINGS.items():
    scores = []
    for seed in seeds:
      workdir = options.folder / f"{name.replace(' ', '_')}-{seed}"
      changed = [f"--config.{change}" for change in (f"seed={seed}", "evaluation.baselines=off", *changes)]
      train(workdir, BASE, *changed)
      scores.append(json.loads((workdir / "eval" / "final.json").read_text()))
    found[name] = [[one[f"trained/{key}"] for one in scores] for key in SCORES]
  print("| setting | RankMe | linear probe | kNN |\n|---|---|---|---|")
  means = {name: [statistics.mean(values) for values in scores] for name, scores in found.items()}
  for name in sorted(means, key=means.get):
    print(f"| {name} | {' | '.join(map(cell, found[name]))} |")
  print("means of the seeds:")
  print_agreement(means)
  for number, seed in enumerate(seeds):
    print(f"seed {seed}:")
    print_agreement({name: [values[number] for values in scores] for name, scores in found.items()})


if __name__ == "__main__":
  main()
