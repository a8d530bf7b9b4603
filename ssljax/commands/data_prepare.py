"""`ssljax data prepare`: a folder or arrays as ArrayRecord shards with a manifest."""

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
    for done, total, skipped in steps:
      bar.update(task, completed=done, total=total)
  for record in skipped:
    print(f"left out: {record}")
  print(
    f"{options.out}: {total - len(skipped):,} records, {len(skipped)} left out; use it as arrayrecord:{options.out}"
  )
  return 0
