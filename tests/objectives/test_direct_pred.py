"""DirectPred: the published predictor, one step by hand, and when matrices move."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from siamese_by_hand import Pixels, check_gradient, close, cosine, each_view, make_batch, started, wide

from ssljax.errors import UserError
from ssljax.objectives.direct_pred import DirectPred, direct_pred, direct_set

OBJECTIVE = DirectPred(encoder=Pixels(), projector_hidden=5, projector_out=4, epsilon=0.1, every=2)
Z = np.sin(np.outer(np.arange(1, 33), np.arange(1, 5)))
CORRELATION = Z.T @ Z / 32


def test_golden_of_the_predictor():
  found = direct_pred(jnp.asarray(CORRELATION, jnp.float32), epsilon=0.01)
  np.testing.assert_allclose(found[0], [0.95784647, 0.01421012, 0.014573, 0.00829784], rtol=1e-4)
  np.testing.assert_allclose(np.diag(found), [0.95784647, 0.97244862, 0.95285345, 0.97131785], rtol=1e-5)
  values = np.linalg.eigvalsh(CORRELATION)
  np.testing.assert_allclose(values, [0.45922034, 0.48948065, 0.52137863, 0.55638905], rtol=1e-6)


@pytest.mark.parametrize("where", ["outside", "inside"])
@pytest.mark.parametrize("epsilon", [0.2, -0.3])
def test_eigenvalues_are_those_of_the_formula(where, epsilon):
  """A correlation of known eigenvalues, one of them below 0, as a moving average's rounding may leave it."""
  values = np.array([-0.1, 0.0, 0.02, 0.5, 2.0])
  vectors = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
  ratio = np.clip(values, 0, None) / 2.0
  new = {
    "outside": [max(r**0.5 + epsilon, 1e-4) for r in ratio],
    "inside": [max(r + epsilon, 1e-4) ** 0.5 for r in ratio],
  }[where]
  correlation = jnp.asarray(vectors @ np.diag(values) @ vectors.T, jnp.float32)
  found = direct_pred(correlation, epsilon=epsilon, where=where)
  np.testing.assert_allclose(found, vectors @ np.diag(new) @ vectors.T, atol=2e-3)


def test_direct_set_is_the_correlation_itself():
  found = direct_set(jnp.asarray(CORRELATION, jnp.float32), epsilon=0.01)
  np.testing.assert_allclose(found, CORRELATION + 0.01 * np.eye(4), rtol=1e-5)


def root(correlation, epsilon):
  values, vectors = np.linalg.eigh(correlation)
  new = np.maximum(np.sqrt(np.maximum(values, 0) / values.max()) + epsilon, 1e-4)
  return vectors @ np.diag(new) @ vectors.T


def by_hand(params, state, views, step, targets=None):
  """Loss, next state and targets; the predictor is that of the step before. `targets` given stay as they are."""
  seen, stats = each_view(params, state["stats"], views)
  known, teacher_stats = each_view(state["teacher"], state["teacher_stats"], views)
  targets = [view["projector"] for view in known] if targets is None else targets
  features = [view["projector"] for view in seen]
  loss = sum(-2 * cosine(f @ state["predictor"].T, z) for f, z in zip(features, targets[::-1], strict=True))
  rows = np.concatenate(features)
  batch = sum(np.outer(f, f) for f in rows) / len(rows)
  correlation = batch if not state["correlation"].any() else 0.3 * state["correlation"] + 0.7 * batch
  due = step % 2 == 0 or not state["correlation"].any()
  predictor = root(correlation, 0.1) if due else state["predictor"]
  moved = {"correlation": correlation, "predictor": predictor, "teacher": state["teacher"]}
  return loss, moved | {"stats": stats, "teacher_stats": teacher_stats}, targets


@pytest.fixture(scope="module")
def tiny():
  params, state, step = started(OBJECTIVE)
  square = np.random.default_rng(2).normal(size=(4, 4)).astype("float32")
  return params, {**state, "correlation": square @ square.T}, step


def test_one_step_by_hand(tiny):
  params, state, step = tiny
  views = make_batch()["views"]
  (loss, out), gradients = step(params, state, make_batch(), 2)
  expected, moved, targets = by_hand(wide(params), wide(state), views, 2)
  assert float(loss) == pytest.approx(expected, rel=1e-4)
  close(out.state, moved, rtol=1e-3, atol=1e-4)
  check_gradient(gradients, lambda p: by_hand(p, wide(state), views, 2, targets)[0], params)


@pytest.mark.parametrize(("step", "correlation"), [(3, "held"), (3, "none"), (4, "none")])
def test_the_predictor_moves_when_it_is_due_and_the_first_correlation_is_the_batchs(tiny, step, correlation):
  params, state, run = tiny
  state = state if correlation == "held" else {**state, "correlation": jnp.zeros((4, 4))}
  (_, out), _ = run(params, state, make_batch(), step)
  _, moved, _ = by_hand(wide(params), wide(state), make_batch()["views"], step)
  for name in ("correlation", "predictor"):
    np.testing.assert_allclose(out.state[name], moved[name], rtol=1e-3, atol=1e-4)


def test_the_other_predictors_and_the_teacher_that_follows(tiny):
  params, state, _ = tiny
  predictors = [dataclasses.replace(OBJECTIVE, **keys)._predictor(jnp.asarray(CORRELATION, jnp.float32)) for keys in (
    dict(predictor="direct_set"), dict(epsilon_place="inside"), dict()
  )]  # fmt: skip
  np.testing.assert_allclose(predictors[0], CORRELATION + 0.1 * np.eye(4), rtol=1e-5)
  np.testing.assert_allclose(predictors[2], root(CORRELATION, 0.1), atol=1e-5)
  assert float(jnp.abs(predictors[1] - predictors[2]).max()) > 0.01
  _, moved = OBJECTIVE.post_update(params, state, step=0)
  kernel = lambda tree: tree["projector"]["fc2"]["kernel"]
  expected = 0.996 * kernel(state["teacher"]) + 0.004 * kernel(params)
  np.testing.assert_allclose(kernel(moved["teacher"]), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
  ("keys", "message"),
  [
    (dict(every=0), "every 0, expected at least 1"),
    (dict(correlation_decay=1.1), "correlation_decay 1.1, expected a number from 0 to 1"),
    (dict(predictor="direct"), r"predictor direct \(did you mean direct_"),
    (dict(epsilon_place="within"), "epsilon_place within"),
  ],
)
def test_bad_fields_are_named(keys, message):
  with pytest.raises(UserError, match=f"direct_pred.DirectPred: {message}"):
    DirectPred(encoder=Pixels(), **keys)
