"""The process `ssljax`, and `python -m ssljax`."""

import sys

from ssljax import runtime
from ssljax.cli import main


def start() -> None:
  """Runs the command line of this process and exits with its code."""
  runtime.use_huge_pages()
  sys.exit(main())


if __name__ == "__main__":
  start()
