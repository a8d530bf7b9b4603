"""OBoW: the loss in loops, the words, the distance, the teacher, and what does not fit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_crops import BATCH, Convolution, batch_norm, make_batch, slow_maps

from ssljax.build import build
from ssljax.errors import UserError
from ssljax.objectives.obow import OBoW
from ssljax.schedules import cosine

WORDS, SHARP, KAPPA = 8, 2.0, 1.5
KEY = jax.random.key(7)
OBJECTIVE = OBoW(
  encoder=Convolution(), words=WORDS, inverse_delta=SHARP, kappa=KAPPA, border=2, window=3, distance_decay=0.5
)


def crops(seed=0, **options):
  return make_batch(seed, **dict(views=3, local=2) | options)


@pytest.fixture(scope="module")
def tiny():
  """Parameters, a state whose teacher is not the student's copy, and the compiled loss(params, state, batch)."""
  params, state = jax.jit(OBJECTIVE.init)(jax.random.key(0), crops())
  draw = np.random.default_rng(1).normal
  moved = lambda x: x + 0.2 * jnp.asarray(draw(size=x.shape), jnp.float32)
  state = state | {"teacher": jax.tree.map(moved, state["teacher"]), "distance": jnp.float32(3.0)}
  run = lambda params, state, batch: OBJECTIVE.loss(params, state, batch, rng=KEY, step=0)
  return params, state, jax.jit(run)


def slow_bags(state, batch):
  """The bags [B,K], the next mean distance, and the means of the windows [B,places,D]."""
  words = np.asarray(state["words"], np.float64)
  maps = slow_maps(state["teacher"]["encoder"], batch["views"][:, :1])[0][:, 2:-2, 2:-2]  # [B,4,4,D]
  far = np.array([[[((f - w) ** 2).sum() for w in words] for f in rows.reshape(-1, 6)] for rows in maps])
  distance = 0.5 * 3.0 + 0.5 * far.min(-1).mean()
  codes = np.exp(-SHARP / distance * far)
  bags = (codes / codes.sum(-1, keepdims=True)).max(1)
  windows = [[maps[:, i : i + 3, j : j + 3].mean((1, 2)) for j in range(2)] for i in range(2)]
  return bags / bags.sum(1, keepdims=True), distance, np.stack(windows[0] + windows[1], axis=1)


def slow_weights(params, words):
  head = jax.tree.map(np.asarray, params["predictor"])
  x = words / np.sqrt(np.maximum((words**2).sum(1, keepdims=True), 1e-12))
  x = np.maximum(batch_norm(x @ head["fc1"]["kernel"], head["bn1"]), 0) @ head["fc2"]["kernel"] + head["fc2"]["bias"]
  return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_the_loss_in_loops(tiny):
  """Two large crops and two small ones, each kind averaged by itself; the first view is the teacher's alone."""
  params, state, loss = tiny
  batch = crops()
  out = loss(params, state, batch)
  bags, distance, _ = slow_bags(state, batch)
  weights = slow_weights(params, np.asarray(state["words"], np.float64))
  total = 0.0
  for views in (batch["views"][:, 1:], batch["local_views"]):
    for view in slow_maps(params["encoder"], views).mean((2, 3)):
      logits = KAPPA * view @ weights.T
      guess = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
      total += np.mean(np.sum(bags * np.log(bags / guess), axis=1)) / 2
  assert float(out.loss) == pytest.approx(total, rel=1e-4)
  assert float(out.state["distance"]) == pytest.approx(distance, rel=1e-5)
  used = np.exp(-np.sum(bags.mean(0) * np.log(bags.mean(0))))
  assert float(out.metrics["obow/words_used"]) == pytest.approx(used, rel=1e-4)
  mean = np.mean(np.exp(-np.sum(bags * np.log(bags), axis=1)))
  assert float(out.metrics["obow/words_a_picture"]) == pytest.approx(mean, rel=1e-4)


def test_one_window_of_every_picture_drives_out_the_oldest_words(tiny):
  params, state, loss = tiny
  after = loss(params, state, crops()).state["words"]
  np.testing.assert_array_equal(after[BATCH:], state["words"][:BATCH])
  windows = slow_bags(state, crops())[2]
  for word, choices in zip(np.asarray(after[:BATCH]), windows, strict=True):
    assert min(np.abs(choices - word).max(axis=1)) < 1e-4
  later = crops() | {"index": crops()["index"] + jnp.uint32(16)}
  assert float(jnp.abs(loss(params, state, later).state["words"] - after).max()) > 1e-3


def test_which_word_stands_where_does_not_matter(tiny):
  params, state, loss = tiny
  turned = {**state, "words": state["words"][::-1]}
  assert float(loss(params, turned, crops()).loss) == pytest.approx(float(loss(params, state, crops()).loss), rel=1e-5)


def test_the_teacher_moves_by_the_decay_of_the_step_it_is_used_in(tiny):
  params, state, _ = tiny
  objective = dataclasses.replace(OBJECTIVE, decay=cosine(peak=0.9, end=1.0, total_steps=10))
  _, after = objective.post_update(params, state, step=4)
  expected = jax.tree.map(
    lambda t, s: 0.95 * t + 0.05 * s, state["teacher"], {"encoder": params["encoder"]}
  )  # half of the way at step 5
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), after["teacher"], expected)
  came_in = OBJECTIVE.imported(params, state)["teacher"]
  jax.tree.map(np.testing.assert_array_equal, came_in, {"encoder": params["encoder"]})


def test_the_teacher_gets_no_gradient_and_both_networks_do(tiny):
  params, state, _ = tiny

  def loss(params, held):
    return OBJECTIVE.loss(params, {**state, **held}, crops(), rng=KEY, step=0).loss

  held = {"teacher": state["teacher"]}
  found, none = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, held)
  assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(none)) == 0
  kernels = [found["encoder"]["conv"]["kernel"]] + [found["predictor"][name]["kernel"] for name in ("fc1", "fc2")]
  assert min(float(jnp.abs(leaf).max()) for leaf in kernels) > 1e-4


def test_encode_is_the_students(tiny):
  params, state, loss = tiny
  state = loss(params, state, crops()).state
  image = crops()["views"][:, 0]
  found = jax.jit(OBJECTIVE.encode)(params, state, {"image": image})["embedding"]
  variables = {"params": params["encoder"], "batch_stats": state["stats"]["encoder"]}
  np.testing.assert_allclose(found, Convolution().apply(variables, image)["embedding"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(words=1), "words 1, expected at least 2"),
    (dict(kappa=0.0), "kappa 0.0, expected more than 0"),
    (dict(inverse_delta=-1.0), "inverse_delta -1.0, expected more than 0"),
    (dict(decay=1.1), "decay 1.1, expected from 0 to 1"),
    (dict(border=-1), "border -1, expected at least 0"),
    (dict(crops="all"), "crops all, expected multi or views"),
  ],
)
def test_bad_fields_are_named(options, message):
  with pytest.raises(UserError, match=f"obow.OBoW: {message}"):
    dataclasses.replace(OBJECTIVE, **options)


@pytest.mark.parametrize(
  ("options", "batch", "message"),
  [
    (dict(words=10), {}, "words 10, expected a multiple of the batch of 4"),
    (dict(border=3), {}, "a map of 8 x 8, expected at least 9 places a side"),
    ({}, dict(views=1), "found 1 views of an image"),
    ({}, dict(count=1), "a batch of 1"),
  ],
)
def test_batches_that_do_not_fit_are_named(options, batch, message):
  with pytest.raises(UserError, match=f"obow.OBoW: .*{message}"):
    dataclasses.replace(OBJECTIVE, **options).init(KEY, crops(**batch))


def test_built_from_a_config_section():
  decay = dict(name="cosine", peak=0.99, end=1.0, total_steps=100)
  section = dict(name="obow.OBoW", encoder=dict(name="resnet.ResNet", depth=18), inverse_delta=10, kappa=5, decay=decay)
  objective = build(section, "objectives", where="objective")
  assert objective.words == 8192 and objective.predictor.hidden == 1024 and objective.couples_examples
