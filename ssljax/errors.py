"""What a user can do wrong, said in one line. Imports nothing heavy: every floor may use it."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
  """A mistake a user can mend; the command line prints the one line and exits with code 2.

  The message names the key or file, what was found and what was expected. It has no line break.
  """


def nearest(name: str, valid: Iterable[str]) -> str:
  """Returns `name` and the valid names as the end of an error line, the closest match first.

  Args:
    name: what the user wrote.
    valid: what could stand there.

  Example: `nearest("lr", ["learning_rate"])` gives `"lr (did you mean learning_rate? valid: learning_rate)"`.
  """
  valid = sorted(valid)
  close = difflib.get_close_matches(name, valid, n=1, cutoff=0.4)
  guess = f"did you mean {close[0]}? " if close else ""
  return f"{name} ({guess}valid: {', '.join(valid) or 'none'})"
