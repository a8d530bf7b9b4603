"""VICReg: the weighted terms of its two projections, and what does not fit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.build import build
from ssljax.errors import UserError
from ssljax.models.vit import ViT
from ssljax.objectives.vicreg import VICReg

BATCH, SIZE = 8, 8
VIT = ViT(width=16, depth=1, heads=2, patch=4, image_size=SIZE)
OBJECTIVE = VICReg(
  encoder=VIT, projector_hidden=10, projector_out=6, projector_layers=2, invariance=3.0, variance=5.0, covariance=0.5
)
KEY = jax.random.key(7)


def make_batch(count=BATCH, views=2):
  drawn = np.random.default_rng(0).normal(size=(count, views, SIZE, SIZE, 3))
  index = np.stack([np.zeros(count), np.arange(count)], axis=1)
  return {"views": jnp.asarray(drawn, jnp.float32), "index": jnp.asarray(index, jnp.uint32)}


@pytest.fixture(scope="module")
def tiny():
  """Parameters, state, and the compiled loss of a batch."""
  params, state = jax.jit(OBJECTIVE.init)(jax.random.key(0), make_batch())
  return params, state, jax.jit(lambda p, s, b: OBJECTIVE.loss(p, s, b, rng=KEY, step=0))


def test_the_loss_is_the_weighted_terms_of_both_projections(tiny):
  params, state, loss = tiny
  batch = make_batch()
  out = loss(params, state, batch)

  def project(view):
    embedding = VIT.apply({"params": params["encoder"]}, batch["views"][:, view])["embedding"]
    variables = {"params": params["projector"], "batch_stats": state["projector"]}
    return OBJECTIVE.projector.apply(variables, embedding, train=True, mutable=["batch_stats"])[0]

  x, y = map(np.float64, jax.jit(lambda: (project(0), project(1)))())
  covariances = [np.cov(z, rowvar=False) for z in (x, y)]
  expected = {
    "invariance": np.mean((x - y) ** 2),
    "variance": sum(np.mean(np.maximum(0, 1 - np.sqrt(np.diag(c) + 1e-4))) for c in covariances) / 2,
    "covariance": sum(np.sum(np.square(c - np.diag(np.diag(c)))) / 6 for c in covariances),
  }
  for key, value in expected.items():
    assert float(out.metrics[f"vicreg/{key}"]) == pytest.approx(value, rel=1e-3), key
  total = 3 * expected["invariance"] + 5 * expected["variance"] + 0.5 * expected["covariance"]
  assert float(out.loss) == pytest.approx(total, rel=1e-4)


def test_equal_views_are_at_no_distance_and_equal_examples_raise_the_alarm(tiny):
  params, state, loss = tiny
  batch = make_batch()
  equal = batch | {"views": jnp.repeat(batch["views"][:, :1], 2, axis=1)}
  assert float(loss(params, state, equal).metrics["vicreg/invariance"]) == pytest.approx(0, abs=1e-6)
  collapsed = loss(params, state, batch | {"views": jnp.broadcast_to(batch["views"][:1], batch["views"].shape)})
  assert float(collapsed.metrics["vicreg/deviation"]) == pytest.approx(0, abs=1e-3)
  assert float(collapsed.metrics["vicreg/variance"]) == pytest.approx(0.99, abs=1e-3)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(invariance=-1.0), "invariance -1.0, expected a finite number, 0 or more"),
    (dict(covariance=float("inf")), "covariance inf"),
    (dict(projector_out=0), "projector_out 0, expected at least 1"),
  ],
)
def test_bad_fields_are_named(options, message):
  with pytest.raises(UserError, match=f"vicreg.VICReg: {message}"):
    dataclasses.replace(OBJECTIVE, **options)


def test_a_batch_of_one_has_no_variance():
  with pytest.raises(UserError, match=r"vicreg\.VICReg: found a batch of 1, expected at least 2"):
    OBJECTIVE.init(KEY, make_batch(count=1))


def test_weights_may_follow_the_step():
  ramp = dict(name="linear", peak=1.0, total_steps=10)
  section = dict(name="vicreg.VICReg", encoder=dict(name="vit.ViT", variant="Ti"), covariance=ramp)
  objective = build(section, "objectives", where="objective")
  assert float(objective.covariance(5)) == pytest.approx(0.5) and objective.projector.out == 8192
