"""`python -m ssljax` is the command `ssljax`."""

import sys

from ssljax.cli import main

if __name__ == "__main__":
  sys.exit(main())
