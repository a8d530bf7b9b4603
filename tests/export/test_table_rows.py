"""Tables whose peer keeps several of our arrays in one, and learnt numbers without axes."""

import numpy as np
import pytest

from ssljax.errors import UserError
from ssljax.export.table import Line, to_ours, to_theirs

LINES = [Line("q", "in_proj", "i o -> o i"), Line("kv", "in_proj", "i t o -> (t o) i"), Line("scale", "scale")]
LINES += [Line("bias", "bias", "-> 1")]
DRAW = np.random.default_rng(0).normal
OURS = {"q": DRAW(size=(2, 3)), "kv": DRAW(size=(2, 2, 3)), "scale": np.array(2.5), "bias": np.array(-1.0)}
SHAPES = {name: array.shape for name, array in OURS.items()}


def test_lines_of_one_name_are_its_rows():
  theirs = to_theirs(LINES, OURS)
  assert {name: array.shape for name, array in theirs.items()} == {"in_proj": (9, 2), "scale": (), "bias": (1,)}
  np.testing.assert_array_equal(theirs["in_proj"], np.concatenate([OURS["q"], *OURS["kv"].swapaxes(0, 1)], axis=1).T)
  back = to_ours(LINES, theirs, SHAPES)
  assert {name: array.shape for name, array in back.items()} == SHAPES
  for name, array in OURS.items():
    np.testing.assert_array_equal(back[name], array)


def test_the_rows_of_all_are_counted():
  theirs = to_theirs(LINES, OURS)
  with pytest.raises(UserError, match=r"in_proj: found shape \[8, 2\], expected \[9, 2\] \(q, kv\)"):
    to_ours(LINES, theirs | {"in_proj": theirs["in_proj"][:8]}, SHAPES)
