"""Which examples keep their labels, against loops; settings that are refused."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssljax.build import build
from ssljax.data.permutation import permute
from ssljax.errors import UserError
from ssljax.evaluators.finetune import Distillation, FineTune, choose
from ssljax.models.vit import ViT


def oracle(labels, *, share, seed):
  """One row of every class after the other, until there are enough."""
  piles = {}
  order = [int(row) for row in permute(np.arange(len(labels)), size=len(labels), key=(seed,)) if labels[row] >= 0]
  for row in order:
    piles.setdefault(labels[row], []).append(row)
  wanted, chosen = max(round(share * len(order)), len(piles)), []
  while len(chosen) < wanted:
    heads = sorted((pile.pop(0) for pile in piles.values() if pile), key=order.index)
    chosen += heads[: wanted - len(chosen)]
  return chosen


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(-1, 4), min_size=1, max_size=60), st.floats(0.01, 1), st.integers(0, 3))
def test_choice_by_loops(labels, share, seed):
  found = choose(np.array(labels), share=share, seed=seed)
  assert found.tolist() == oracle(labels, share=share, seed=seed)


def test_choice_is_even_nested_and_of_every_class():
  labels = np.repeat([0, 1, 2], [200, 100, 5])
  rows = [choose(labels, share=share, seed=0) for share in (0.001, 0.05, 0.2, 1.0)]
  counts = [np.bincount(labels[chosen], minlength=3).tolist() for chosen in rows]
  assert counts[0] == [1, 1, 1] and counts[1] == [5, 5, 5] and counts[3] == [200, 100, 5]
  assert counts[2][2] == 5 and abs(counts[2][0] - counts[2][1]) <= 1 and sum(counts[2]) == 61
  for few, many in itertools.pairwise(rows):
    assert set(few) < set(many)
  other = choose(labels, share=0.05, seed=1)
  assert set(other) != set(rows[1]) and set(choose(labels, share=0.05, seed=0)) == set(rows[1])


@pytest.mark.parametrize(
  ("keys", "message"),
  [
    (dict(shares=()), r"shares \(\), expected shares of the labels"),
    (dict(shares=(0.1, 1.5)), "above 0 to 1"),
    (dict(shares=(0.0,)), "above 0 to 1"),
    (dict(steps=0), "steps 0, expected at least 1"),
    (dict(projector_layers=-1), "projector_layers -1, expected at least 0"),
    (dict(weight_decay=-0.1), "weight_decay -0.1"),
    (dict(seed=-1), "seed -1"),
    (dict(learning_rate=0.0), "learning_rate 0.0, expected a finite number above 0"),
    (dict(distill=Distillation(encoder=ViT(), steps=0)), "distill.steps 0, expected at least 1"),
  ],
)
def test_bad_settings_are_named(keys, message):
  with pytest.raises(UserError, match=f"finetune.FineTune: .*{message}"):
    FineTune(**keys)


def test_built_from_a_section_and_never_called():
  section = dict(name="finetune.FineTune", shares=[0.5], distill=dict(encoder=dict(name="vit.ViT", variant="Ti")))
  made = build(section, "evaluators", where="evals")
  assert made.shares == (0.5,) and made.distill.encoder.variant == "Ti" and (made.reads, made.when) == ("run", "asked")
  with pytest.raises(UserError, match="reads something else"):
    made("a text probe")
