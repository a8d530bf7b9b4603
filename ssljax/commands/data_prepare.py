"""`ssljax data prepare`: a folder, arrays or pairs as ArrayRecord shards with a manifest."""

import argparse

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ssljax.data.prepare import prepare


def run(options: argparse.Namespace) -> int:
  """Returns the exit code of `ssljax data prepare`."""
  steps = prepare(options.source, options.out, shards=options.shards, licence=options.licence)
  columns = (TextColumn("writing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
  with Progress(*columns, console=Console(stderr=True)) as bar:
    task = bar.add_task("records", total=None)
    for state in steps:
      bar.update(task, completed=state.done, total=state.total)
  for record in state.skipped:
    print(f"left out: {record}")
  kept, lost = state.total - len(state.skipped), len(state.skipped)
  print(f"{options.out}: {kept:,} records, {lost} left out; use it as arrayrecord:{options.out}")
  return 0
