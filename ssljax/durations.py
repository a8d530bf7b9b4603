"""How long something lasts, written in steps, examples or epochs."""

import math
import re
from fractions import Fraction

from ssljax.errors import UserError


def to_steps(value: int | str, *, batch_size: int, num_examples: int | None) -> int:
  """Returns a duration in steps, rounded up: `100` and `"100"` are steps, `"1e6ex"` examples, `"40ep"` epochs.

  Args:
    value: the duration.
    batch_size: examples a step, over all devices and hosts.
    num_examples: examples an epoch; None where the source has no end.

  Raises:
    UserError: the text is no duration, or it counts epochs of a source without end.
  """
  found = re.fullmatch(r"(\d+(?:\.\d*)?(?:[eE]\+?\d{1,2})?)(ep|ex|)", str(value).strip(), re.ASCII)
  if not found or (not found[2] and Fraction(found[1]).denominator != 1):
    raise UserError(f"duration: found {value!r}, expected a number of steps (100), examples (1e6ex) or epochs (40ep)")
  if found[2] == "ep" and num_examples is None:
    raise UserError(f"duration: found {value!r}, but the source has no end: expected steps (100) or examples (1e6ex)")
  examples = {"": batch_size, "ex": 1, "ep": num_examples}[found[2]]
  return math.ceil(Fraction(found[1]) * examples / batch_size)
