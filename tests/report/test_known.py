"""What the report reads of a run through tasks: rows of different length, and files that are not ours."""

import math
import pathlib

import numpy as np
import pytest

from ssljax.errors import UserError
from ssljax.report import known

FILE = pathlib.Path("runs/x/eval/continual.json")
CONTENT = {
  "tasks": ["digits", "<b>"],
  "rows": {
    "before": {"knn": [0.25], "rankme": [9.0]},
    "digits": {"knn": [0.5, 0.125], "rankme": [8.0, 7.0]},
    "<b>": {"knn": [0.375, 0.75], "rankme": [8.0, 7.0]},
  },
}


def test_scores_with_a_better_and_a_worse_become_tables():
  (table,) = known.read(CONTENT, {"continual/knn/forgetting": 0.125, "trained/knn": 1.0}, path=FILE)
  assert (table.metric, table.tasks, table.rows) == ("knn", ("digits", "<b>"), ("before", "digits", "<b>"))
  np.testing.assert_array_equal(table.scores, [[0.25, math.nan], [0.5, 0.125], [0.375, 0.75]])
  assert table.measures == {"forgetting": 0.125}
  picture = table.picture()
  assert "<b>" not in picture and "75.0" in picture and "digits" in picture
  assert known.read({}, {}, path=FILE) == []


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"tasks": "digits"}, "found no lists of tasks and rows"),
    ({"tasks": ["x"] * 51}, "expected those of 1 to 50 tasks"),
    ({"rows": {"before": [1.0]}}, "found a row that is no object"),
    ({"rows": {"before": {"knn": [0.1, 0.2, 0.3]}}}, "not of up to 2 numbers"),
    ({"rows": {"before": {"knn": [0.1]}, "digits": {}}}, "not of up to 2 numbers"),
    ({"rows": {"before": {"knn": ["a"]}}}, "not of up to 2 numbers"),
  ],
)
def test_files_that_are_not_ours(change, message):
  with pytest.raises(UserError, match=message):
    known.read(CONTENT | change, {}, path=FILE)
