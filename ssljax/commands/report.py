"""`ssljax report`: one self-contained page of one or several runs."""

import argparse
import pathlib

from ssljax.report import page


def run(options: argparse.Namespace) -> int:
  """Returns the exit code of `ssljax report`."""
  folders = [pathlib.Path(folder) for folder in options.dirs]
  out = pathlib.Path(options.out) if options.out else folders[0] / "report.html"
  page.write(folders, out)
  print(out)
  return 0
