"""SimSiam: one step by hand with and without predictor and stopped gradient."""

import dataclasses

import jax
import numpy as np
import pytest
from siamese_by_hand import KEY, Pixels, check_gradient, close, cosine, each_view, make_batch, started, unit, wide

from ssljax.errors import UserError
from ssljax.objectives.simsiam import SimSiam

OBJECTIVE = SimSiam(encoder=Pixels(), projector_width=5, predictor_hidden=3)


def by_hand(objective, params, state, views, targets=None):
  """Loss, next state and targets; `targets` given stay as they are."""
  seen, stats = each_view(params, state["stats"], views)
  targets = [view["projector"] for view in seen] if targets is None else targets
  predictions = [view["predictor" if objective.predictor == "mlp" else "projector"] for view in seen]
  loss = -0.5 * (cosine(predictions[0], targets[1]) + cosine(predictions[1], targets[0]))
  return loss, {"stats": stats}, targets


@pytest.mark.parametrize(("predictor", "stop_gradient"), [("mlp", "on"), ("none", "on"), ("mlp", "off")])
def test_one_step_by_hand(predictor, stop_gradient):
  objective = dataclasses.replace(OBJECTIVE, predictor=predictor, stop_gradient=stop_gradient)
  params, state, step = started(objective)
  views = make_batch()["views"]
  (loss, out), gradients = step(params, state, make_batch(), 0)
  expected, moved, targets = by_hand(objective, wide(params), wide(state), views)
  assert float(loss) == pytest.approx(expected, rel=1e-4) and float(out.metrics["simsiam/cosine"]) == -float(loss)
  spread = np.mean(np.std(unit(targets[0]), axis=0)) * 5**0.5
  assert float(out.metrics["simsiam/std"]) == pytest.approx(spread, rel=1e-4)
  close(out.state, moved)
  held = targets if stop_gradient == "on" else None
  check_gradient(gradients, lambda p: by_hand(objective, p, wide(state), views, held)[0], params)


def test_heads_are_those_of_the_paper():
  params, state = jax.eval_shape(SimSiam(encoder=Pixels()).init, KEY, make_batch())
  shape = lambda part, name: params[part][name]["kernel"].shape
  assert [shape("projector", f"fc{n}") for n in (1, 2, 3)] == [(6, 2048), (2048, 2048), (2048, 2048)]
  assert [shape("predictor", f"fc{n}") for n in (1, 2)] == [(2048, 512), (512, 2048)]
  assert "bn3" in state["stats"]["projector"] and "bn3" not in params["projector"]
  assert "bn2" not in state["stats"]["predictor"] and "bias" in params["predictor"]["fc2"]


@pytest.mark.parametrize(
  ("keys", "message"),
  [
    (dict(projector_width=0), "projector_width 0, expected at least 1"),
    (dict(predictor_hidden=0), "predictor_hidden 0"),
    (dict(predictor="mpl"), r"predictor mpl \(did you mean mlp\?"),
    (dict(stop_gradient="none"), "stop_gradient none"),
  ],
)
def test_bad_fields_are_named(keys, message):
  with pytest.raises(UserError, match=f"simsiam.SimSiam: {message}"):
    SimSiam(encoder=Pixels(), **keys)
