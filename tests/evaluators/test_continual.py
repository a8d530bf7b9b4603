import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ssljax.errors import UserError
from ssljax.evaluators import continual

NAN = math.nan
# Accuracies of three tasks. After task 1 task 0 has fallen from .9 to .6, after task 2 it is back at .7.
SCORES = np.array([[0.9, 0.3, 0.2], [0.6, 0.8, 0.4], [0.7, 0.5, 1.0]])
UNTRAINED = np.array([0.1, 0.2, 0.1])
GOLDEN = {
  "average": 2.2 / 3,  # (.7 + .5 + 1) / 3
  "average_seen": (0.9 + 1.4 / 2 + 2.2 / 3) / 3,
  "backward_transfer": -0.25,  # ((.7 - .9) + (.5 - .8)) / 2
  "forward_transfer": 0.2,  # ((.3 - .2) + (.4 - .1)) / 2
  "forgetting": 0.25,  # ((.9 - .7) + (.8 - .5)) / 2
}
SIGNED = ("backward_transfer", "forward_transfer", "forgetting")

squares = st.integers(1, 6).flatmap(
  lambda t: st.tuples(
    hnp.arrays(np.float64, (t, t), elements=st.floats(-9, 9)), hnp.arrays(np.float64, t, elements=st.floats(-9, 9))
  )
)


def oracle(scores, untrained, *, better):
  """The measures by loops, tasks counted from 0, each branch of `better` written out."""
  tasks, result = len(scores), {}
  gain = (lambda new, old: new - old) if better == "higher" else (lambda new, old: old - new)
  best = max if better == "higher" else min
  result["average"] = sum(scores[tasks - 1][j] for j in range(tasks)) / tasks
  seen = 0.0
  for i in range(tasks):
    seen += sum(scores[i][j] for j in range(i + 1)) / (i + 1)
  result["average_seen"] = seen / tasks
  if tasks == 1:
    return result
  back = forward = lost = 0.0
  for j in range(tasks - 1):
    back += gain(scores[tasks - 1][j], scores[j][j])
    lost += gain(best(scores[row][j] for row in range(tasks - 1)), scores[tasks - 1][j])
  for j in range(1, tasks):
    forward += gain(scores[j - 1][j], untrained[j])
  shares = {"backward_transfer": back, "forward_transfer": forward, "forgetting": lost}
  return result | {name: value / (tasks - 1) for name, value in shares.items()}


def test_three_tasks_by_hand():
  assert continual.summary(SCORES, UNTRAINED, better="higher") == pytest.approx(GOLDEN)


@given(squares, st.sampled_from(["higher", "lower"]))
def test_summary_equals_loops(pair, better):
  scores, untrained = pair
  expected = oracle(scores.tolist(), untrained.tolist(), better=better)
  assert continual.summary(scores, untrained, better=better) == pytest.approx(expected, abs=1e-9)


@given(squares)
def test_lower_is_better_keeps_averages_and_mirrors_the_rest(pair):
  """Bits are minus a score: averages stay bits, the signed measures do not see which of the two was given."""
  scores, untrained = pair
  bits = continual.summary(scores, untrained, better="lower")
  mirrored = continual.summary(-scores, -untrained, better="higher")
  assert bits.keys() == mirrored.keys()
  for name, value in bits.items():
    assert value == (mirrored[name] if name in SIGNED else -mirrored[name])


def test_signs_in_bits_per_byte():
  """Task 0 costs 2 bits once learned and 5 at the end: worse. Task 1 costs 6 before it is learned, untrained 8."""
  found = continual.summary(np.array([[2.0, 6.0], [5.0, 3.0]]), np.array([8.0, 8.0]), better="lower")
  signed = {"backward_transfer": -3.0, "forward_transfer": 2.0, "forgetting": 3.0}
  assert found == {"average": 4.0, "average_seen": 3.0} | signed


def test_best_row_may_lie_before_or_after_the_task():
  """The maximum of column 0 is in row 1 (a later task taught it), that of column 1 in row 0 (before it was learned)."""
  scores = np.array([[0.5, 0.9, 0.0], [0.8, 0.7, 0.0], [0.4, 0.6, 0.0]])
  assert continual.forgetting(scores, better="higher") == pytest.approx(((0.8 - 0.4) + (0.9 - 0.6)) / 2)


def test_the_last_row_is_no_maximum_so_forgetting_can_be_negative():
  scores = np.array([[0.5, 0.0], [0.7, 0.9]])
  assert continual.forgetting(scores, better="higher") == pytest.approx(-0.2)
  assert continual.backward_transfer(scores, better="higher") == pytest.approx(0.2)


@given(squares)
def test_nothing_changes_after_learning(pair):
  """Scores that stay where they were: no forgetting, no transfer either way."""
  scores, untrained = pair
  still = np.broadcast_to(untrained, scores.shape)
  for name, value in continual.summary(still, untrained, better="higher").items():
    assert value == pytest.approx(untrained.mean() if name == "average" else 0 if name in SIGNED else value)


def test_one_task_has_only_averages():
  scores, untrained = np.array([[0.7]]), np.array([0.1])
  assert continual.summary(scores, untrained, better="lower") == {"average": 0.7, "average_seen": 0.7}
  assert math.isnan(continual.backward_transfer(scores, better="higher"))
  assert math.isnan(continual.forward_transfer(scores, untrained, better="higher"))
  assert math.isnan(continual.forgetting(scores, better="higher"))


@pytest.mark.parametrize(
  ("better", "forgetting"),
  # Before the end tasks 0 and 1 had at best .9 and .8, at the end .7 and .5; as bits at least .6 and .8.
  [("higher", ((0.9 - 0.7) + (0.8 - 0.5)) / 2), ("lower", ((0.7 - 0.6) + (0.5 - 0.8)) / 2)],
)
def test_future_tasks_need_not_be_measured(better, forgetting):
  scores = np.where(np.triu(np.ones((3, 3)), 1), NAN, SCORES)
  found = continual.summary(scores, UNTRAINED, better=better)
  full = continual.summary(SCORES, UNTRAINED, better=better)
  assert found.keys() == full.keys() - {"forward_transfer"}
  assert all(found[name] == full[name] for name in ("average", "average_seen", "backward_transfer"))
  assert found["forgetting"] == pytest.approx(forgetting)


def test_forward_transfer_needs_only_the_next_task():
  scores, untrained = SCORES.copy(), UNTRAINED.copy()
  scores[0, 2], untrained[0] = NAN, NAN
  found = continual.summary(scores, untrained, better="higher")
  assert found == pytest.approx(GOLDEN)
  untrained[1] = NAN
  assert "forward_transfer" not in continual.summary(scores, untrained, better="higher")


@pytest.mark.parametrize(
  ("scores", "message"),
  [
    (np.zeros((2, 3)), r"\(2, 3\)"),
    (np.zeros((0, 0)), "at least one task"),
    (np.zeros(4), "square"),
    (np.array([[1, 0], [NAN, 1]]), "nan on task 0 after task 1"),
    (np.array([[1, math.inf], [1, 1]]), "inf on task 1 after task 0"),
  ],
)
def test_bad_scores_are_named(scores, message):
  with pytest.raises(UserError, match=message):
    continual.summary(scores, np.zeros(len(scores)), better="higher")


@pytest.mark.parametrize("untrained", [np.zeros(2), np.zeros((3, 1)), np.array([0, -math.inf, 0])])
def test_bad_untrained_scores_are_named(untrained):
  with pytest.raises(UserError, match="untrained"):
    continual.forward_transfer(SCORES, untrained, better="higher")


def test_inputs_are_left_alone():
  scores, untrained = SCORES.copy(), UNTRAINED.copy()
  continual.summary(scores, untrained, better="lower")
  np.testing.assert_array_equal(scores, SCORES)
  np.testing.assert_array_equal(untrained, UNTRAINED)


@pytest.mark.parametrize(
  ("score", "better"),
  [
    ("i2t_r@5", "higher"), ("t2i_r@10", "higher"), ("knn", "higher"), ("R/bits_per_byte", "lower"),
    ("i2t_chance@5", None), ("rankme", None),
  ],
)  # fmt: skip
def test_scores_that_are_better_high_low_or_neither(score, better):
  assert continual.better_of(score) == better
