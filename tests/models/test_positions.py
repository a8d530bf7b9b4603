import math

import numpy as np
import pytest

from ssljax.errors import UserError
from ssljax.models.positions import sincos_2d


def test_golden():
  table = sincos_2d((2, 2), 8)
  np.testing.assert_allclose(table[0], [0, 0, 1, 1, 0, 0, 1, 1])
  np.testing.assert_allclose(table[1], [0.84147098, 0.00999983, 0.54030231, 0.99995, 0, 0, 1, 1], rtol=1e-6)


def test_every_number_by_the_formula():
  rows, columns, dim = 3, 5, 12
  table = sincos_2d((rows, columns), dim)
  assert table.dtype == np.float32 and table.shape == (15, 12)
  for r in range(rows):
    for c in range(columns):
      for i in range(3):
        w = 10000 ** (-i / 3)
        expected = [math.sin(c * w), math.cos(c * w), math.sin(r * w), math.cos(r * w)]
        np.testing.assert_allclose(table[r * columns + c, i::3], expected, atol=1e-7)


def test_odd_width_is_named():
  with pytest.raises(UserError, match="width: 6"):
    sincos_2d((2, 2), 6)
