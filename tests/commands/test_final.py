"""What stands beside a trained network at the end of a run."""

from types import SimpleNamespace

import pytest

from ssljax.commands import final
from ssljax.training.config import Evaluation


class Measure:
  """Calls nothing but itself: 1 for pixels, 2 untrained, 3 trained."""

  def __call__(self, state):
    assert state == "untrained"
    return {"knn": 2}

  def raw(self):
    return {"knn": 1}

  def scores(self, features):
    return {"knn": features}

  def more(self, state):
    return {"r@1": state}


@pytest.mark.parametrize(
  ("baselines", "beside"), [("on", {"raw/knn": 1.0, "untrained/knn": 2.0}), ("off", {})], ids=("on", "off")
)
def test_baselines_stand_beside_where_they_are_wanted(baselines, beside, monkeypatch):
  monkeypatch.setattr(final.states, "create", lambda *_: "untrained")
  job = SimpleNamespace(evaluation=Evaluation(evals={}, baselines=baselines), seed=0)
  run = SimpleNamespace(job=job, init=None, like=None)
  found = final._beside_baselines(run, Measure(), 3, 4)
  assert found == {**beside, "trained/knn": 3.0, "trained/r@1": 4.0}
