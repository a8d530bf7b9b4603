import math

import pytest

from ssljax.errors import UserError
from ssljax.evaluators.collapse import Alarm, History, told, watched


def row(step, rank, std=0.1, **more):
  return {"step": step, "health/embedding_rankme": rank, "health/embedding_feature_std": std, **more}


def said(alarm, rows):
  """{step: line} of what is said, and at which steps it has collapsed."""
  history = History(alarm)
  lines = {one["step"]: (history.add(one["step"], one), history.collapsed) for one in rows}
  return {step: line for step, (line, _) in lines.items() if line}, [step for step, (_, on) in lines.items() if on]


def test_it_is_said_once_after_patience_and_again_after_a_recovery():
  ranks = [10, 16, 3, 9, 3, 2, 1, 9, 3, 3]
  lines, on = said(Alarm(rankme=0.25, patience=2), [row(10 * n, rank) for n, rank in enumerate(ranks)])
  line = "step 50: collapse: embedding RankMe 2, 12 % of its best (16 at step 10)"
  assert lines.keys() == {50, 90} and lines[50] == line and on == [50, 60, 90]


def test_it_looks_at_projections_where_there_are_any_and_names_the_lowest():
  more = lambda rank, std: {"health/projection_rankme": rank, "health/projection_feature_std": std}
  rows = [row(0, 10.0, 0.1, **more(8.0, 0.2), **{"health/projection_alignment": 1.0}), row(1, 9.0, **more(1.0, 0.19))]
  assert watched(rows[0]).keys() == more(0, 0).keys()
  assert watched(row(0, 1.0)).keys() == {"health/embedding_rankme", "health/embedding_feature_std"}
  lines, _ = said(Alarm(patience=1), rows)
  assert lines == {1: "step 1: collapse: projection RankMe 1, 12 % of its best (8 at step 0)"}
  moved_off = [row(0, 8.0, 0.04, **more(9.0, 0.04)), row(1, 1.3, 0.006, **more(12.0, 0.1))]  # a healthy BYOL's
  assert said(Alarm(patience=1), moved_off)[0] == {}


def test_the_best_may_come_late_and_shares_are_each_measures_own():
  rows = [row(0, 4.0), row(1, 100.0), row(2, 30.0, 0.04)]
  assert said(Alarm(rankme=0.2, feature_std=0.3, patience=1), rows)[0] == {}
  assert said(Alarm(rankme=0.4, feature_std=0.3, patience=1), rows)[0].keys() == {2}
  assert said(Alarm(rankme=0.2, feature_std=0.5, patience=1), rows)[0].keys() == {2}


def test_what_is_not_a_number_is_a_collapse_and_zero_is_no_mistake():
  assert said(Alarm(patience=1), [row(0, 4.0), row(1, math.nan)])[1] == [1]
  assert said(Alarm(patience=1), [row(0, 0.0, 0.0), row(1, 0.0, 0.0)])[1] == []
  assert said(Alarm(patience=1), [row(0, math.nan), row(1, 4.0), row(2, 0.9)])[1] == [0, 2]


def test_records_tell_what_was_said():
  rows = [row(10 * n, rank) for n, rank in enumerate([16, 2, 2, 2, 9, 2, 2])]
  lines, on = said(Alarm(), rows)
  records = [one | {"health/collapse": float(one["step"] in on)} for one in rows]
  records.insert(1, {"step": 5, "train/loss": 1.0})
  assert told(records, Alarm()) == lines and lines.keys() == {20, 60}
  assert told(rows, Alarm()) == told([], Alarm()) == {}


@pytest.mark.parametrize("bad", [{"rankme": 1.0}, {"feature_std": -0.1}, {"projection_std": 2.0}, {"patience": 0}])
def test_mistakes_are_named(bad):
  with pytest.raises(UserError, match=f"{next(iter(bad))}: found"):
    Alarm(**bad)


def test_rank_counts_from_one_and_projections_are_held_to_more():
  lines, _ = said(Alarm(patience=1), [row(0, 6.0), row(1, 1.8), row(2, 1.7)])
  assert lines.keys() == {2} and lines[2].endswith("RankMe 1.7, 28 % of its best (6 at step 0)")
  projection = [{"health/projection_feature_std": value} for value in (0.1, 0.06, 0.04)]
  lines, _ = said(Alarm(patience=1), [row(step, 6.0, **one) for step, one in enumerate(projection)])
  assert lines == {2: "step 2: collapse: projection feature std 0.04, 40 % of its best (0.1 at step 0)"}
