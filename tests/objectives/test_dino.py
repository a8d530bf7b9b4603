"""DINO: the loss in loops, the teacher and its statistics, the centre, both collapses, and what does not fit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from tiny_crops import BATCH, SIZE, Convolution, make_batch, slow_maps

from ssljax.build import build
from ssljax.errors import UserError
from ssljax.export import parts
from ssljax.losses.clustering import sinkhorn
from ssljax.models.vit import ViT
from ssljax.objectives.dino import DINO
from ssljax.schedules import linear
from ssljax.types import TrainState

K = 5
KEY = jax.random.key(7)
OBJECTIVE = DINO(
  encoder=Convolution(), prototypes=K, head_hidden=7, head_bottleneck=4, student_temperature=0.3,
  teacher_temperature=linear(peak=0.2, end=0.5, total_steps=10),
)  # fmt: skip


@pytest.fixture(scope="module")
def tiny():
  """Parameters, a state that is not the student's copy, and the compiled loss(params, state, batch, step)."""
  params, state = jax.jit(OBJECTIVE.init)(jax.random.key(0), make_batch())
  draw = np.random.default_rng(1).normal
  moved = lambda x: x + 0.2 * jnp.asarray(draw(size=x.shape), jnp.float32)
  state = state | {name: jax.tree.map(moved, state[name]) for name in ("teacher", "teacher_stats")}
  state["center"] = {"cls": state["center"]["cls"] | {"center": jnp.linspace(-0.5, 0.5, K)}}
  run = lambda params, state, batch, step: OBJECTIVE.loss(params, state, batch, rng=KEY, step=step)
  return params, state, jax.jit(run)


def slow_scores(params, batch, keys):
  """Scores f64[V,B,K] of the crops, each resolution normalised by itself."""
  maps = [slow_maps(params["encoder"], batch[key]) for key in keys]
  x = np.concatenate([each.mean((2, 3)) for each in maps])
  return np.asarray(OBJECTIVE.heads_of["head"].apply({"params": params["head"]}, x), np.float64)


def slow_softmax(x):
  return np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)


def slow_loss(student, targets, temperature=0.3):
  total, terms = 0.0, 0
  for q in range(len(targets)):
    for v in range(len(student)):
      if v != q:
        total -= np.mean(np.sum(targets[q] * np.log(slow_softmax(student[v] / temperature)), axis=1))
        terms += 1
  assert terms == 8  # two teachers, four crops each
  return total / terms


def test_the_loss_in_loops_and_the_centre_after_the_step(tiny):
  """The temperature is that of the step, the centre that of the steps before."""
  params, state, loss = tiny
  batch = make_batch()
  out = loss(params, state, batch, 5)
  student = slow_scores(params, batch, ("views", "local_views"))
  teacher = slow_scores(state["teacher"], batch, ("views",))
  center = np.linspace(-0.5, 0.5, K)
  targets = slow_softmax((teacher - center) / 0.35)
  assert float(out.loss) == pytest.approx(slow_loss(student, targets), rel=1e-4)
  sure = -np.mean(np.sum(targets * np.log(targets), axis=-1))
  assert float(out.metrics["dino/entropy"]) == pytest.approx(sure, rel=1e-4)
  assert float(out.metrics["dino/kl"]) == pytest.approx(slow_loss(student, targets) - sure, rel=1e-3)
  np.testing.assert_allclose(out.state["center"]["cls"]["center"], center, rtol=1e-6)
  _, after = OBJECTIVE.post_update(params, out.state, step=0)
  expected = 0.9 * center + 0.1 * teacher.reshape(-1, K).mean(0)
  np.testing.assert_allclose(after["center"]["cls"]["center"], expected, rtol=1e-4, atol=1e-6)


def test_the_teacher_follows_the_parameters_and_has_statistics_of_its_own(tiny):
  params, state, loss = tiny
  out = loss(params, state, make_batch(), 0)
  _, after = OBJECTIVE.post_update(params, out.state, step=0)
  expected = jax.tree.map(lambda t, s: 0.996 * t + 0.004 * s, state["teacher"], params)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), after["teacher"], expected)
  one, two = (out.state[key]["encoder"]["bn"]["mean"] for key in ("stats", "teacher_stats"))
  views = make_batch()["views"].reshape(-1, SIZE, SIZE, 3)
  hidden = nn.Conv(6, (3, 3)).apply({"params": state["teacher"]["encoder"]["conv"]}, views)
  held = state["teacher_stats"]["encoder"]["bn"]["mean"]
  np.testing.assert_allclose(two, 0.9 * held + 0.1 * jnp.mean(hidden, axis=(0, 1, 2)), rtol=1e-4, atol=1e-6)
  blank = make_batch() | {"local_views": jnp.zeros_like(make_batch()["local_views"])}
  other = loss(params, state, blank, 0).state
  np.testing.assert_array_equal(other["teacher_stats"]["encoder"]["bn"]["mean"], two)
  assert float(jnp.abs(other["stats"]["encoder"]["bn"]["mean"] - one).max()) > 1e-3


def test_the_teacher_gets_no_gradient_and_the_student_does(tiny):
  params, state, _ = tiny

  def loss(params, teacher):
    return OBJECTIVE.loss(params, {**state, "teacher": teacher}, make_batch(), rng=KEY, step=0).loss

  found, none = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, state["teacher"])
  assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(none)) == 0
  assert (
    min(float(jnp.abs(leaf).max()) for leaf in (found["encoder"]["conv"]["kernel"], found["head"]["prototypes"])) > 1e-4
  )


def test_metrics_tell_both_collapses(tiny):
  """All scores alike: entropy log K. The same prototype for all pictures: entropy 0. No divergence in either."""
  params, state, loss = tiny
  for column, expected in ((0.0, np.log(K)), (1.0, 0.0)):
    prototypes = jnp.zeros((4, K)).at[0].set(-column).at[0, 2].set(column)
    mlp = jax.tree.map(jnp.zeros_like, params["head"]["mlp"])
    mlp["fc3"]["bias"] = mlp["fc3"]["bias"].at[0].set(1.0)
    same = {**params, "head": {"mlp": mlp, "prototypes": prototypes}}
    center = {"cls": state["center"]["cls"] | {"center": jnp.zeros(K)}}
    metrics = loss(same, {**state, "teacher": same, "center": center}, make_batch(), 0).metrics
    assert float(metrics["dino/entropy"]) == pytest.approx(expected, abs=5e-3)
    assert float(metrics["dino/kl"]) < 0.02


def test_sinkhorn_in_place_of_a_centre(tiny):
  params, state, _ = tiny
  objective = dataclasses.replace(OBJECTIVE, centering="sinkhorn", crops="views")
  batch = {key: make_batch(views=4)[key] for key in ("views", "index")}
  held = {**state, "center": {"cls": {}}}
  run = lambda p, s: objective.loss(p, s, batch, rng=KEY, step=0)
  out = jax.jit(run)(params, held)
  scores = slow_scores(state["teacher"], batch, ("views",))
  targets = sinkhorn(jnp.asarray(scores.reshape(-1, K)), epsilon=0.2, iterations=3).reshape(scores.shape)
  student = slow_scores(params, batch, ("views",))
  crossed = [
    -np.mean(np.sum(np.asarray(targets[q]) * np.log(slow_softmax(student[v] / 0.3)), axis=1))
    for q in range(4)
    for v in range(4)
    if v != q
  ]
  assert float(out.loss) == pytest.approx(np.mean(crossed), rel=1e-4)
  assert objective.couples_examples and jax.tree.structure(out.state) == jax.tree.structure(held)


def test_paths_are_dropped_of_the_student_alone():
  encoder = ViT(width=16, depth=2, heads=2, patch=4, image_size=SIZE, drop_path=0.9)
  objective = dataclasses.replace(OBJECTIVE, encoder=encoder)
  assert not objective.couples_examples
  params, state = jax.jit(objective.init)(jax.random.key(0), make_batch())
  run = jax.jit(lambda rng: objective.loss(params, state, make_batch(), rng=rng, step=0))
  one, two = (run(jax.random.key(seed)) for seed in range(2))
  assert float(one.metrics["dino/entropy"]) == float(two.metrics["dino/entropy"])
  assert abs(float(one.loss) - float(two.loss)) > 1e-4


def test_the_teacher_is_what_is_measured_and_exported(tiny):
  params, state, loss = tiny
  state = loss(params, state, make_batch(), 0).state
  images = {"image": make_batch()["views"][:, 0]}
  encode = jax.jit(OBJECTIVE.encode)
  found = encode(params, state, images)["embedding"]
  assert found.shape == (BATCH, 6)
  taken, weights = parts.take(OBJECTIVE, TrainState(0, params, {}, state, KEY), "auto")
  assert weights == "teacher"
  variables = parts.variables(taken, "encoder")
  expected = Convolution().apply(variables, images["image"])["embedding"]
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
  student, _ = parts.take(OBJECTIVE, TrainState(0, params, {}, state, KEY), "student")
  mean = student["encoder/batch_stats/bn/mean"]
  np.testing.assert_array_equal(mean, state["stats"]["encoder"]["bn"]["mean"])
  assert float(np.abs(mean - taken["encoder/batch_stats/bn/mean"]).max()) > 1e-3


def test_what_comes_in_is_taught_by_a_copy_of_itself(tiny):
  params, state, loss = tiny
  state = loss(params, state, make_batch(), 0).state
  after = OBJECTIVE.imported(params, state)
  jax.tree.map(np.testing.assert_array_equal, after["teacher"], params)
  jax.tree.map(np.testing.assert_array_equal, after["teacher_stats"], state["stats"])


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(prototypes=1), "prototypes 1, expected at least 2"),
    (dict(head_layers=0), "head_layers 0, expected at least 1"),
    (dict(student_temperature=0.0), "student_temperature 0.0, expected more than 0"),
    (dict(teacher_temperature=-1.0), "teacher_temperature -1.0, expected more than 0"),
    (dict(decay=1.5), "decay 1.5, expected from 0 to 1"),
    (dict(centering="sinkhorm"), r"centering sinkhorm \(did you mean sinkhorn"),
    (dict(center_decay=1.0), "center_decay 1.0"),
    (dict(crops="local"), "crops local, expected multi or views"),
  ],
)
def test_bad_fields_are_named(options, message):
  with pytest.raises(UserError, match=f"dino.DINO: {message}"):
    dataclasses.replace(OBJECTIVE, **options)


@pytest.mark.parametrize(
  ("batch", "message"),
  [(dict(count=1), "a batch of 1"), (dict(views=1), "found 1 views"), (dict(side=12), "local views of 12 pixels")],
)
def test_batches_that_do_not_fit_are_named(batch, message):
  with pytest.raises(UserError, match=f"dino.DINO: .*{message}"):
    OBJECTIVE.init(KEY, make_batch(**batch))


def test_built_from_a_config_section():
  encoder = dict(name="vit.ViT", variant="S", patch=16, drop_path=0.1)
  warm = dict(name="linear", peak=0.04, end=0.07, total_steps=30)
  decay = dict(name="cosine", peak=0.996, end=1.0, total_steps=100)
  section = dict(name="dino.DINO", encoder=encoder, teacher_temperature=warm, decay=decay)
  objective = build(section, "objectives", where="objective")
  assert objective.heads_of["head"].prototypes == 65536 and not objective.couples_examples
  # The released schedule of the decay over ten steps.
  released = [0.996, 0.99609789, 0.99638197, 0.99682443, 0.99738197, 0.998]
  ten = dataclasses.replace(objective, decay=build(decay | {"total_steps": 10}, "schedules", where="decay"))
  np.testing.assert_allclose([float(ten.decay(step)) for step in range(6)], released, rtol=1e-6)
