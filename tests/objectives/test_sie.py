"""SIE: its terms written out with a matrix an example, what each side is asked for, and what does not fit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.augment.views import Views
from ssljax.errors import UserError
from ssljax.models.vit import ViT
from ssljax.objectives.sie import SIE
from ssljax.view_numbers import NAMES, relative

BATCH, SIZE = 8, 8
VIT = ViT(width=16, depth=1, heads=2, patch=4, image_size=SIZE)
OBJECTIVE = SIE(
  encoder=VIT, equivariant=4, projector_hidden=16, projector_out=12, projector_layers=2,
  invariance=2.0, equivariance=3.0, variance=5.0, covariance=0.5,
)  # fmt: skip
KEY = jax.random.key(7)


def make_batch(count=BATCH, views=2):
  rng = np.random.default_rng(0)
  transforms = rng.normal(size=(count, views, len(NAMES)))
  transforms[..., 2:4] = rng.uniform(0.4, 1, (count, views, 2)) * np.sign(transforms[..., 2:4])
  index = np.stack([np.zeros(count), np.arange(count)], axis=1)
  return {
    "views": jnp.asarray(rng.normal(size=(count, views, SIZE, SIZE, 3)), jnp.float32),
    "transforms": jnp.asarray(transforms, jnp.float32),
    "index": jnp.asarray(index, jnp.uint32),
  }


@pytest.fixture(scope="module")
def tiny():
  """Parameters, state, and the compiled loss of a batch."""
  params, state = jax.jit(OBJECTIVE.init)(jax.random.key(0), make_batch())
  return params, state, jax.jit(lambda p, s, b: OBJECTIVE.loss(p, s, b, rng=KEY, step=0))


def test_the_loss_is_the_weighted_terms_of_both_sides(tiny):
  params, state, loss = tiny
  batch = make_batch()
  out = loss(params, state, batch)

  def project(view):
    embedding = VIT.apply({"params": params["encoder"]}, batch["views"][:, view])["embedding"]
    run = lambda side, x: OBJECTIVE.projectors[side].apply(
      {"params": params[side], "batch_stats": state[side]}, x, train=True, mutable=["batch_stats"]
    )[0]
    return run("invariant", embedding[:, :12]), run("equivariant", embedding[:, 12:])

  x, y = jax.tree.map(np.float64, jax.jit(lambda: (project(0), project(1)))())
  assert [side.shape[1] for side in x] == [9, 3]
  z = np.asarray(relative(batch["transforms"][:, 0], batch["transforms"][:, 1]))
  matrices = np.asarray(params["hypernetwork"]["kernel"]).reshape(len(NAMES), 3, 3)
  moved = np.stack([x[1][n] @ np.einsum("t,tef->ef", z[n], matrices) for n in range(BATCH)])
  hinge = lambda v: np.mean(np.maximum(0, 1 - np.sqrt(np.var(v, axis=0, ddof=1) + 1e-4)))
  squares = lambda v: np.sum(np.square(np.cov(v, rowvar=False) * (1 - np.eye(12)))) / 12
  both = [np.concatenate(v, axis=1) for v in (x, y)]
  expected = {
    "invariance": np.mean((x[0] - y[0]) ** 2),
    "equivariance": np.mean((moved - y[1]) ** 2),
    "variance": (hinge(both[0]) + hinge(both[1]) + hinge(moved)) / 2,
    "covariance": squares(both[0]) + squares(both[1]),
    "unmoved": np.mean((x[1] - y[1]) ** 2),
  }
  for key, value in expected.items():
    assert float(out.metrics[f"sie/{key}"]) == pytest.approx(value, rel=1e-3), key
  total = sum(w * expected[k] for k, w in dict(invariance=2, equivariance=3, variance=5, covariance=0.5).items())
  assert float(out.loss) == pytest.approx(total, rel=1e-3)


def test_views_made_alike_are_moved_by_the_sum_of_two_matrices(tiny):
  """From a view to itself leads (0, 0, 1, 1, 0, ...): were its two matrices halves of the identity, nothing is left."""
  params, state, loss = tiny
  batch = make_batch()
  equal = {key: jnp.repeat(batch[key][:, :1], 2, axis=1) for key in ("views", "transforms")} | {"index": batch["index"]}
  halves = np.zeros((len(NAMES), 3, 3), np.float32)
  halves[2:4] = np.eye(3) / 2
  still = params | {"hypernetwork": {"kernel": jnp.asarray(halves.reshape(-1, 3))}}
  metrics = loss(still, state, equal).metrics
  assert float(metrics["sie/equivariance"]) == pytest.approx(0, abs=1e-6)
  assert float(metrics["sie/invariance"]) == pytest.approx(0, abs=1e-6)
  assert float(loss(params, state, equal).metrics["sie/equivariance"]) > 1e-2


def test_the_augmentation_tells_what_it_reads():
  batch = {"image": jnp.zeros((2, 20, 20, 3), jnp.uint8), "aspect": jnp.ones(2)}
  made = jax.eval_shape(Views(recipe="byol", size=SIZE, tell="transforms"), jax.random.split(KEY, 2), batch)
  assert set(OBJECTIVE.batch_keys) <= set(made) and made["transforms"].shape == (2, 2, len(NAMES))


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(equivariant=16), "equivariant 16 of 16 numbers, expected 1 to 15"),
    (dict(equivariant=0), "equivariant 0 of 16 numbers"),
    (dict(projector_out=1), "projector_out 1, expected some for each side"),
    (dict(equivariance=-1.0), "equivariance -1.0, expected a finite number"),
    (dict(projector_layers=0), "projector_layers 0, expected at least 1"),
  ],
)
def test_bad_fields_are_named(options, message):
  with pytest.raises(UserError, match=f"sie.SIE: {message}"):
    dataclasses.replace(OBJECTIVE, **options)


@pytest.mark.parametrize(("count", "views", "message"), [(1, 2, "batch of 1"), (8, 3, "3 views")])
def test_bad_batches_are_named(count, views, message):
  with pytest.raises(UserError, match=f"sie.SIE: found (a )?{message}"):
    OBJECTIVE.init(KEY, make_batch(count, views))
