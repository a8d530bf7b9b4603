"""The part of `ssljax eval` that trains: what is asked for by name, its table and its file."""

import pathlib
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from ssljax import distributed
from ssljax.commands import workdir as workdirs
from ssljax.commands.train import say
from ssljax.training.evaluation import Measure
from ssljax.training.finetune import fine_tune
from ssljax.training.run import Run
from ssljax.types import TrainState

ROWS = {"scratch": "from scratch", "pretrained": "pretrained", "distilled": "distilled"}


def asked(measure: Any) -> dict[str, Any]:
  """Returns the evaluators that train, by their names in the config."""
  evaluators = measure.evaluators if isinstance(measure, Measure) else {}
  return {name: found for name, found in evaluators.items() if getattr(found, "reads", "features") == "run"}


def scores(run: Run, measure: Any, state: TrainState) -> dict[str, float]:
  """Returns "NAME/SHARE/ROW" -> accuracy or number of labels of each evaluator that trains; prints the tables."""
  found = {}
  for name, settings in asked(measure).items():
    numbers = fine_tune(run, measure, state, settings, say=say)
    Console(quiet=not distributed.is_main()).print(table(numbers, name))
    found |= {f"{name}/{key}": value for key, value in numbers.items()}
  return found


def store(found: Mapping[str, float], folder: pathlib.Path, step: int) -> None:
  """Writes eval/STEP_finetune.json, beside eval/STEP.json, which the next `ssljax eval` writes anew."""
  file = folder / "eval" / f"{step}_finetune.json"
  workdirs.write_json(file, found)
  if distributed.is_main():
    print(f"accuracies  {file}")


def table(numbers: Mapping[str, float], name: str) -> Table:
  """Returns the table of the accuracies: a row a share of the labels, a column a beginning."""
  shares = dict.fromkeys(key.partition("/")[0] for key in numbers)
  rows = [row for row in ROWS if any(key.endswith(f"/{row}") for key in numbers)]
  made = Table(f"{name}, labels", *(ROWS[row] for row in rows))
  for share in shares:
    cells = [f"{numbers[f'{share}/{row}']:.3f}" for row in rows]
    made.add_row(f"{100 * float(share):g} % ({numbers[f'{share}/examples']:.0f})", *cells)
  return made
