"""`ssljax list`: what a config can name."""

import argparse
import pathlib

from ssljax import build
from ssljax.errors import UserError, nearest

PARTS = ("objectives", "models", "augment", "optim", "schedules", "evaluators")


def run(options: argparse.Namespace) -> int:
  """Returns the exit code of `ssljax list [WHAT]`."""
  valid = (*PARTS, "sources", "configs")
  if options.what and options.what not in valid:
    raise UserError(f"list: nothing is called {nearest(options.what, valid)}")
  for part in [options.what] if options.what else valid:
    print(f"{part}:")
    for name in _names(part):
      print(f"  {name}")
  return 0


def _names(part: str) -> list[str]:
  if part == "configs":
    return sorted(str(path) for path in pathlib.Path("configs").glob("*.py"))
  if part == "sources":
    from ssljax.data import documents, source

    return [f"{kind}:" for kind in sorted({*source.KINDS, *documents.KINDS})]
  return build.names(part)
