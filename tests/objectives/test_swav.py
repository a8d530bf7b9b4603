"""SwAV: the loss in loops, the queue, the statistics of each resolution, unit prototypes, and what does not fit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from tiny_crops import BATCH, SIZE, Convolution, batch_norm, make_batch, slow_maps

from ssljax.build import build
from ssljax.errors import UserError
from ssljax.models.vit import ViT
from ssljax.objectives.swav import SwAV

K, T, EPSILON = 5, 0.2, 0.3
KEY = jax.random.key(7)


OBJECTIVE = SwAV(
  encoder=Convolution(), projector_hidden=16, projector_out=3, prototypes=K, temperature=T, epsilon=EPSILON, queue=8,
  queue_from=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def tiny():
  """Parameters, state, and the compiled loss(params, state, batch, step) of the objective with a queue."""
  params, state = jax.jit(OBJECTIVE.init)(jax.random.key(0), make_batch())
  run = lambda params, state, batch, step: OBJECTIVE.loss(params, state, batch, rng=KEY, step=step)
  return params, state, jax.jit(run)


def slow_projections(params, batch):
  """Each resolution through the encoder with statistics of its own, then all crops through the projector."""
  maps = [slow_maps(params["encoder"], batch[key]) for key in ("views", "local_views")]
  x = np.concatenate([each.mean((2, 3)).reshape(-1, 6) for each in maps])
  head = jax.tree.map(np.asarray, params["projector"])
  x = np.maximum(batch_norm(x @ head["fc1"]["kernel"], head["bn1"]), 0) @ head["fc2"]["kernel"] + head["fc2"]["bias"]
  return (x / np.linalg.norm(x, axis=1, keepdims=True)).reshape(-1, BATCH, 3)


def slow_sinkhorn(scores):
  q = np.exp(scores / EPSILON).T
  q /= q.sum()
  for _ in range(3):
    for k in range(K):
      q[k] /= q[k].sum() * K
    for b in range(q.shape[1]):
      q[:, b] /= q[:, b].sum() * q.shape[1]
  return q.T * q.shape[1]


def slow_loss(z, prototypes, queue=None):
  total = 0.0
  for i in range(2):
    rows = z[i] if queue is None else np.concatenate([queue[i], z[i]])
    q = slow_sinkhorn(rows @ prototypes.T)[-BATCH:]
    part = 0.0
    for v in range(len(z)):
      if v != i:
        logits = z[v] @ prototypes.T / T
        part -= np.mean(np.sum(q * (logits - np.log(np.exp(logits).sum(1, keepdims=True))), axis=1))
    total += part / (len(z) - 1)
  return total / 2


def test_the_loss_in_loops_before_and_after_the_queue_is_used(tiny):
  """The queue is of two batches: it is used from `queue_from` on, if it is full."""
  params, state, loss = tiny
  prototypes = np.asarray(params["prototypes"], np.float64)
  seen = [slow_projections(params, make_batch(seed)) for seed in range(3)]
  for seed, step in ((0, 3), (1, 4)):  # not full yet
    out = loss(params, state, make_batch(seed), step)
    assert float(out.loss) == pytest.approx(slow_loss(seen[seed], prototypes), rel=1e-4)
    state = out.state
  queue = np.concatenate([seen[1][:2], seen[0][:2]], axis=1)
  np.testing.assert_allclose(state["queue"], queue, rtol=1e-4, atol=1e-5)
  alone, together = slow_loss(seen[2], prototypes), slow_loss(seen[2], prototypes, queue)
  assert abs(alone - together) > 1e-3
  assert float(loss(params, state, make_batch(2), 2).loss) == pytest.approx(alone, rel=1e-4)
  out = loss(params, state, make_batch(2), 3)
  assert float(out.loss) == pytest.approx(together, rel=1e-4)
  np.testing.assert_allclose(out.state["queue"][:, :BATCH], seen[2][:2], rtol=1e-4, atol=1e-5)
  np.testing.assert_array_equal(out.state["queue"][:, BATCH:], state["queue"][:, :BATCH])


def test_running_statistics_move_once_for_each_resolution(tiny):
  params, state, loss = tiny
  after = loss(params, state, make_batch(), 0).state["stats"]
  expected = jnp.zeros(6)
  for key in ("views", "local_views"):
    images = make_batch()[key].reshape(-1, *make_batch()[key].shape[2:])
    hidden = nn.Conv(6, (3, 3)).apply({"params": params["encoder"]["conv"]}, images)
    expected = 0.9 * expected + 0.1 * jnp.mean(hidden, axis=(0, 1, 2))
  np.testing.assert_allclose(after["encoder"]["bn"]["mean"], expected, rtol=1e-4, atol=1e-6)
  assert float(jnp.abs(after["projector"]["bn1"]["mean"]).max()) > 0


def test_entropy_and_prototypes_used(tiny):
  params, state, loss = tiny
  metrics = loss(params, state, make_batch(), 0).metrics
  q = np.stack(
    [slow_sinkhorn(z @ np.asarray(params["prototypes"]).T) for z in slow_projections(params, make_batch())[:2]]
  )
  assert float(metrics["swav/entropy"]) == pytest.approx(-np.mean(np.sum(q * np.log(q), axis=-1)), rel=1e-3)
  assert 1 < float(metrics["swav/prototypes_used"]) <= K
  fc2 = {"kernel": jnp.zeros((16, 3)), "bias": jnp.eye(3)[0]}  # every crop is projected to the same place
  collapsed = {**params, "projector": params["projector"] | {"fc2": fc2}}
  for prototypes, used in ((jnp.zeros((K, 3)), K), (jnp.zeros((K, 3)).at[2, 0].set(9.0), 1)):
    metrics = loss({**collapsed, "prototypes": prototypes}, state, make_batch(), 0).metrics
    assert float(metrics["swav/prototypes_used"]) == pytest.approx(used, rel=1e-5)


def test_prototypes_are_of_unit_length_at_the_start_and_after_every_step(tiny):
  params, state, _ = tiny
  np.testing.assert_allclose(np.linalg.norm(params["prototypes"], axis=1), 1, rtol=1e-5)
  longer = {**params, "prototypes": params["prototypes"] * jnp.arange(1.0, K + 1)[:, None]}
  moved, same = OBJECTIVE.post_update(longer, state, step=0)
  np.testing.assert_allclose(moved["prototypes"], params["prototypes"], rtol=1e-5)
  assert same is state and moved["encoder"] is params["encoder"]


def test_gradients_reach_all_networks_and_no_target(tiny):
  params, state, _ = tiny

  def loss(params, queue):
    return OBJECTIVE.loss(params, {**state, "queue": queue}, make_batch(), rng=KEY, step=9).loss

  queue = jnp.ones_like(state["queue"])
  found, none = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, queue)
  kernels = [found["encoder"]["conv"]["kernel"], found["projector"]["fc1"]["kernel"], found["prototypes"]]
  assert min(float(jnp.abs(leaf).max()) for leaf in kernels) > 1e-4
  assert float(jnp.abs(none).max()) == 0


def test_without_queue_and_local_views_the_state_holds_statistics_alone():
  objective = dataclasses.replace(OBJECTIVE, crops="views", queue=0)
  assert objective.batch_keys == ("views",)
  batch = {key: make_batch()[key] for key in ("views", "index")}
  params, state = jax.jit(objective.init)(jax.random.key(0), batch)
  out = jax.jit(lambda p, s: objective.loss(p, s, batch, rng=KEY, step=0))(params, state)
  assert set(state) == {"stats"} and jax.tree.structure(out.state) == jax.tree.structure(state)
  assert np.isfinite(float(out.loss))


def test_encode_gives_unit_projections_with_the_running_statistics(tiny):
  params, state, _ = tiny
  images = make_batch()["views"][:, 0]
  encode = jax.jit(OBJECTIVE.encode)
  found = encode(params, state, {"image": images})
  assert found["embedding"].shape == (BATCH, 6)
  np.testing.assert_allclose(np.linalg.norm(found["projection"], axis=1), 1, rtol=1e-5)
  alone = encode(params, state, {"image": images.at[1:].set(0.0)})
  np.testing.assert_allclose(alone["projection"][0], found["projection"][0], rtol=1e-5)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(prototypes=1), "prototypes 1, expected at least 2"),
    (dict(temperature=0.0), "temperature 0.0, expected more than 0"),
    (dict(epsilon=-0.1), "epsilon -0.1, expected more than 0"),
    (dict(queue=-1), "queue -1, expected at least 0"),
    (dict(crops="both"), "crops both, expected multi or views"),
  ],
)
def test_bad_fields_are_named(options, message):
  with pytest.raises(UserError, match=f"swav.SwAV: {message}"):
    dataclasses.replace(OBJECTIVE, **options)


VIT = ViT(width=16, depth=1, heads=2, patch=4, image_size=SIZE)


@pytest.mark.parametrize(
  ("options", "batch", "message"),
  [
    (dict(queue=10), {}, "queue 10, expected a multiple of the batch of 4"),
    ({}, dict(count=1), "a batch of 1, expected at least 2"),
    ({}, dict(views=1), "found 1 views of an image, expected 2"),
    ({}, dict(side=12), "local views of 12 pixels, expected at most 8, the side of a view"),
    (dict(encoder=VIT), dict(side=6), r"local views of 6 pixels, expected a multiple of patch=4"),
    (dict(encoder=VIT.clone(positions="learnt")), {}, r"local views of 4 pixels, expected encoder.positions sincos"),
  ],
)
def test_batches_that_do_not_fit_are_named(options, batch, message):
  with pytest.raises(UserError, match=message):
    dataclasses.replace(OBJECTIVE, **options).init(KEY, make_batch(**batch))


def test_built_from_a_config_section():
  encoder = dict(name="resnet.ResNet", depth=18)
  section = dict(name="swav.SwAV", encoder=encoder, temperature=dict(name="constant", value=0.1), queue=3840)
  objective = build(section, "objectives", where="objective")
  assert objective.prototypes == 3000 and objective.projector.hidden == 2048 and objective.couples_examples
