"""Barlow Twins: the loss of its two projections, the batch statistics of each view, and what does not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.build import build
from ssljax.errors import UserError
from ssljax.models.vit import ViT
from ssljax.objectives.barlow_twins import BarlowTwins
from ssljax.schedules import constant

BATCH, SIZE = 8, 8
VIT = ViT(width=16, depth=1, heads=2, patch=4, image_size=SIZE)
OBJECTIVE = BarlowTwins(encoder=VIT, projector_hidden=10, projector_out=6, off_diagonal_weight=constant(value=0.3))
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


def test_the_loss_is_of_correlations_and_each_view_has_statistics_of_its_own(tiny):
  params, state, loss = tiny
  batch = make_batch()
  out = loss(params, state, batch)

  def project(view, statistics):
    embedding = VIT.apply({"params": params["encoder"]}, batch["views"][:, view])["embedding"]
    variables = {"params": params["projector"], "batch_stats": statistics}
    return OBJECTIVE.projector.apply(variables, embedding, train=True, mutable=["batch_stats"])

  def both(state):
    x, changed = project(0, state)
    y, changed = project(1, changed["batch_stats"])
    return x, y, changed["batch_stats"]

  x, y, statistics = jax.jit(both)(state["projector"])
  correlation = np.corrcoef(x, y, rowvar=False)[:6, 6:]
  squares = np.square(correlation - np.eye(6))
  expected = np.trace(squares), 0.3 * (squares.sum() - np.trace(squares))
  found = out.metrics["barlow_twins/diagonal"], out.metrics["barlow_twins/off_diagonal"]
  np.testing.assert_allclose(found, expected, rtol=2e-3)  # without the 1e-5 of the variances
  assert float(out.loss) == pytest.approx(float(sum(found)), rel=1e-6)
  assert float(out.metrics["barlow_twins/deviation"]) == pytest.approx(float(np.std(x, axis=0).mean()), rel=1e-4)
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
  jax.tree.map(close, out.state, {"encoder": {}, "projector": statistics})


def test_equal_views_leave_the_correlations_between_numbers(tiny):
  params, state, loss = tiny
  batch = make_batch()
  equal = batch | {"views": jnp.repeat(batch["views"][:, :1], 2, axis=1)}
  metrics = loss(params, state, equal).metrics
  assert (
    float(metrics["barlow_twins/diagonal"]) == pytest.approx(0, abs=1e-3) and metrics["barlow_twins/off_diagonal"] > 0.1
  )


def test_the_projector_is_the_papers_by_default():
  projector = BarlowTwins(encoder=VIT).projector
  assert (projector.hidden, projector.out, projector.layers) == (8192, 8192, 3)
  assert (projector.norm, projector.last_norm, projector.last_bias) == ("batch", "none", "absent")


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(off_diagonal_weight=-1.0), "off_diagonal_weight -1.0, expected a finite number"),
    (dict(off_diagonal_weight=float("nan")), "off_diagonal_weight nan"),
    (dict(projector_layers=0), "projector_layers 0, expected at least 1"),
  ],
)
def test_bad_fields_are_named(options, message):
  with pytest.raises(UserError, match=f"barlow_twins.BarlowTwins: {message}"):
    BarlowTwins(encoder=VIT, **options)


@pytest.mark.parametrize(("count", "views", "message"), [(1, 2, "batch of 1"), (8, 1, "1 views"), (8, 3, "3 views")])
def test_bad_batches_are_named(count, views, message):
  with pytest.raises(UserError, match=f"barlow_twins.BarlowTwins: found (a )?{message}"):
    OBJECTIVE.init(KEY, make_batch(count, views))


def test_built_from_a_config_section():
  encoder = dict(name="resnet.ResNet", depth=18)
  section = dict(name="barlow_twins.BarlowTwins", encoder=encoder, projector_out=64, off_diagonal_weight=0.01)
  objective = build(section, "objectives", where="objective")
  assert objective.projector.out == 64 and list(objective.parts()) == ["encoder"]
