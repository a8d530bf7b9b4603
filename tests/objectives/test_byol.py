"""BYOL: one step by hand with and without predictor and stopped gradient, and a teacher of its own."""

import dataclasses

import jax
import numpy as np
import pytest
from siamese_by_hand import (
  KEY,
  Pixels,
  check_gradient,
  close,
  cosine,
  each_view,
  make_batch,
  started,
  unit,
  wide,
)

from ssljax.errors import UserError
from ssljax.objectives.byol import BYOL
from ssljax.schedules import linear

OBJECTIVE = BYOL(encoder=Pixels(), projector_hidden=12, projector_out=4, decay=0.75)


def by_hand(objective, params, state, views, targets=None):
  """Loss, next state and targets; the teacher is asked as it is. `targets` given stay as they are."""
  seen, stats = each_view(params, state["stats"], views)
  known, teacher_stats = each_view(state["teacher"], state["teacher_stats"], views)
  if targets is None:
    targets = [unit(view["projector"]) for view in (known if objective.stop_gradient == "on" else seen)]
  predictions = [unit(view["predictor" if objective.predictor == "mlp" else "projector"]) for view in seen]
  loss = sum(np.sum((p - z) ** 2) / len(p) for p, z in zip(predictions, targets[::-1], strict=True))
  return loss, {"stats": stats, "teacher": state["teacher"], "teacher_stats": teacher_stats}, targets


@pytest.mark.parametrize(("predictor", "stop_gradient"), [("mlp", "on"), ("none", "on"), ("mlp", "off")])
def test_one_step_by_hand(predictor, stop_gradient):
  objective = dataclasses.replace(OBJECTIVE, predictor=predictor, stop_gradient=stop_gradient)
  params, state, step = started(objective)
  views = make_batch()["views"]
  (loss, out), gradients = step(params, state, make_batch(), 0)
  expected, moved, targets = by_hand(objective, wide(params), wide(state), views)
  assert float(loss) == pytest.approx(expected, rel=1e-4)
  assert float(out.metrics["byol/cosine"]) == pytest.approx(1 - expected / 4, abs=1e-5)
  close(out.state, moved)
  held = targets if stop_gradient == "on" else None  # where no gradient is stopped, the targets follow
  check_gradient(gradients, lambda p: by_hand(objective, p, wide(state), views, held)[0], params)
  assert ("predictor" in params) == (predictor == "mlp") and "predictor" not in out.state["teacher"]


def test_the_teacher_follows_after_the_optimiser_by_parameters_alone():
  objective = dataclasses.replace(OBJECTIVE, decay=linear(peak=0.5, end=1.0, total_steps=4))
  params, state = jax.jit(objective.init)(KEY, make_batch())
  for step, decay in ((0, 0.5), (2, 0.75), (4, 1.0)):
    after, moved = objective.post_update(params, state, step=step)
    student = {name: params[name] for name in ("encoder", "projector")}
    expected = jax.tree.map(lambda t, s, d=decay: d * t + (1 - d) * s, wide(state["teacher"]), wide(student))
    close(moved["teacher"], expected)
    assert after is params and moved["teacher_stats"] is state["teacher_stats"] and moved["stats"] is state["stats"]


def test_the_teacher_begins_as_another_network_and_is_the_student_after_an_import():
  params, state = jax.jit(OBJECTIVE.init)(KEY, make_batch())
  kernel = lambda tree: tree["encoder"]["fc1"]["kernel"]
  assert abs(cosine(kernel(state["teacher"]).T, kernel(params).T)) < 0.5
  again = OBJECTIVE.imported(params, state)
  np.testing.assert_array_equal(kernel(again["teacher"]), kernel(params))


def test_a_collapse_shows():
  """A projector that says nothing but its last bias: all pictures are one."""
  params, state, step = started(dataclasses.replace(OBJECTIVE, predictor="none"))
  (_, out), _ = step(params, state, make_batch(), 0)
  assert 0.5 < float(out.metrics["byol/std"]) < 1.1
  same = jax.tree.map(lambda x: x, params)
  same["projector"]["bn1"]["scale"] = 0 * same["projector"]["bn1"]["scale"]
  (_, out), _ = step(
    same, {**state, "teacher": {name: same[name] for name in ("encoder", "projector")}}, make_batch(), 0
  )
  assert float(out.metrics["byol/std"]) < 1e-5 and float(out.metrics["byol/cosine"]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
  ("keys", "message"),
  [
    (dict(projector_out=0), "projector_out 0, expected at least 1"),
    (dict(decay=2.0), "decay 2.0, expected a number from 0 to 1"),
    (dict(predictor="linear"), r"predictor linear \(.*valid: mlp, none\)"),
    (dict(stop_gradient="no"), r"stop_gradient no \(.*valid: off, on\)"),
  ],
)
def test_bad_fields_are_named(keys, message):
  with pytest.raises(UserError, match=f"byol.BYOL: {message}"):
    BYOL(encoder=Pixels(), **keys)
