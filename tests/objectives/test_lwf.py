"""The previous model is taken where a task begins, the term and its gradient are right, the rest is passed on."""

import copy
import dataclasses
import pickle
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from ssljax import sharding
from ssljax.build import build
from ssljax.errors import UserError
from ssljax.objectives.lwf import LwF
from ssljax.objectives.mae import MAE
from ssljax.training.step import make_step
from ssljax.types import LossOutput, Objective, TrainState

KEY, B = jax.random.key(0), 16
VIT = dict(name="vit.ViT", variant="Ti", width=16, depth=1, heads=2, patch=4, image_size=8)
INNER = {
  "mae": dict(name="mae.MAE", encoder=VIT, decoder_width=8, decoder_depth=1, decoder_heads=2),
  "simclr": dict(name="simclr.SimCLR", encoder=VIT, projector_out=8, projector_layers=1),
} | {
  model: dict(
    name="ul2.UL2",
    model=dict(name=model, vocab_size=30, width=16, depth=1, heads=2, head_width=8, hidden=16),
  )
  for model in ("t5.T5", "prefix_lm.PrefixLM")
}
# Compiling is what takes the time here, not running.
ZERO, ONE = np.zeros(B, np.int32), np.ones(B, np.int32)
MIXED = np.arange(B, dtype=np.int32) % 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shifted(Objective):
  """Embeds by a matrix and a running mean in the state: small enough to follow by hand."""

  batch_keys: ClassVar[tuple[str, ...]] = ("image",)
  couples_examples: ClassVar[bool] = True

  def init(self, rng, batch):
    del batch
    return {"w": jax.random.normal(rng, (3, 4))}, {"mean": jnp.zeros(4), "updates": jnp.zeros(())}

  def loss(self, params, state, batch, *, rng, step):
    del rng, step
    loss = jnp.mean((batch["image"] @ params["w"] - 1) ** 2)
    mean = state["mean"] + jnp.mean(batch["image"])
    return LossOutput(loss=loss, state={**state, "mean": mean}, metrics={"shifted/loss": loss}, weight=3.0)

  def encode(self, params, state, batch):
    return {"embedding": batch["image"] @ params["w"] + state["mean"]}

  def post_update(self, params, state, *, step):
    return jax.tree.map(lambda x: x * 0.99, params), {**state, "updates": state["updates"] + step}

  def show(self, params, state, batch, *, rng):
    return {"shifted": batch["image"] + state["mean"][:3]}


def images(number):
  return jnp.asarray(np.random.default_rng(number).normal(size=(B, 3)), jnp.float32)


def pictures(*shape):
  return jnp.asarray(np.random.default_rng(1).normal(size=(B, *shape, 8, 8, 3)), jnp.float32)


def text():
  place = np.tile(np.arange(8), (B, 1))
  tokens = np.random.default_rng(0).integers(5, 30, (2, B, 8))
  leaves = dict(inputs=tokens[0], input_segments=place * 0 + 1, targets=tokens[1], target_segments=place * 0 + 1)
  leaves |= dict(target_positions=place, prefix=place < 3, target_group=place * 0, target_bytes=place * 0 + 3)
  return {key: jnp.asarray(value, jnp.int32) for key, value in leaves.items()}


def batch_of(task, **leaves):
  index = np.stack([np.zeros(B), np.arange(B)], axis=1).astype(np.uint32)
  return leaves | {"task": jnp.asarray(task), "index": jnp.asarray(index)}


def quick(function):
  return jax.jit(function)


def gradient_of(objective, compiler=quick):
  """Returns (params, state, batch, step) -> ((loss, output), gradients)."""

  def loss(params, state, batch, step):
    out = objective.loss(params, state, batch, rng=KEY, step=step)
    return out.loss, out

  return compiler(jax.value_and_grad(loss, has_aux=True))


def equal(found, expected):
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def moved(params, size=0.1):
  draw = np.random.default_rng(5).normal
  return jax.tree.map(lambda x: x + size * jnp.asarray(draw(size=x.shape), jnp.float32), params)


def slow_distance(a, b):
  a, b = (torch.tensor(np.array(x, np.float64)) for x in (a, b))
  return float((1 - torch.nn.functional.cosine_similarity(a, b)).mean())


def test_the_previous_model_is_todays_exactly_where_a_task_begins():
  objective = LwF(objective=Shifted())
  function = gradient_of(objective)
  params, state = objective.init(KEY, {})
  previous, old = params, state["objective"]
  #        first  same   begins  goes on  replay       only replay  begins   skips one
  tasks = [ZERO, ZERO, MIXED, ONE, MIXED, ZERO, 2 * MIXED, 4 * ONE]
  for step, (task, begins) in enumerate(zip(tasks, [0, 0, 1, 0, 0, 0, 1, 1], strict=True)):
    if begins:
      previous, old = params, state["objective"]  # as they are before they learn from this batch
    batch = batch_of(task, image=images(step))
    (loss, out), gradients = function(params, state, batch, step)
    equal((out.state["previous"], out.state["previous_state"]), (previous, old))
    assert int(out.state["task"]) == max(task.max() for task in tasks[: step + 1])
    distance = float(out.metrics["lwf/distance"])
    assert float(loss) == pytest.approx(float(out.metrics["shifted/loss"]) + distance, rel=1e-6)
    assert distance == pytest.approx(0, abs=1e-6) if begins or step < 2 else distance > 1e-4
    if step >= 2:
      before, after = (batch["image"] @ p["w"] + s["mean"] for p, s in ((previous, old), (params, state["objective"])))
      assert distance == pytest.approx(slow_distance(before, after), rel=1e-4, abs=1e-6)
    params, state = jax.tree.map(lambda p, g: p - 0.3 * g, params, gradients), out.state


def test_task_0_is_the_objective_bit_for_bit_whatever_the_previous_model():
  objective = LwF(objective=Shifted(), weight=3.0)
  params, state = objective.init(KEY, {})
  equal((params, state["objective"]), Shifted().init(KEY, {}))
  state, batch = {**state, "previous": {"w": params["w"] * jnp.nan}}, batch_of(ZERO, image=images(0))
  # Operation by operation: in two programs the compiler may add the same numbers in two orders.
  (loss, out), gradients = gradient_of(objective, compiler=lambda f: f)(params, state, batch, 0)
  (expected, inner), expected_gradients = gradient_of(Shifted(), compiler=lambda f: f)(
    params, state["objective"], batch, 0
  )
  equal((loss, gradients, out.weight), (expected, expected_gradients, inner.weight))
  equal((out.metrics, out.state["objective"]), (inner.metrics | {"lwf/distance": jnp.zeros(())}, inner.state))


@pytest.mark.parametrize("name", INNER)
def test_term_and_gradient_equal_a_direct_computation(name):
  weight = {"name": "linear", "peak": 4.0, "total_steps": 10}  # 2.4 at step 4
  objective = build(dict(name="lwf.LwF", objective=INNER[name], weight=weight), "objectives", where="objective")
  inner = objective.objective
  views = name == "simclr"
  leaves = {"views": pictures(2)} if views else text() if name in ("t5.T5", "prefix_lm.PrefixLM") else {}
  batch = batch_of(MIXED, **(leaves or {"image": pictures()}))
  assert objective.batch_keys == (*inner.batch_keys, "task") and set(objective.batch_keys) <= set(batch)
  seen = batch | ({"image": batch["views"][:, 0]} if views else {})
  params, state = quick(objective.init)(KEY, batch)
  state = {**state, "previous": moved(params), "task": jnp.int32(1)}

  def direct(params, weight):
    out = inner.loss(params, state["objective"], batch, rng=KEY, step=4)
    before = inner.encode(state["previous"], state["previous_state"], seen)["embedding"]
    after = inner.encode(params, state["objective"], seen)["embedding"]
    cosine = jnp.sum(before * after, -1) / jnp.linalg.norm(before, axis=-1) / jnp.linalg.norm(after, axis=-1)
    return out.loss + weight * jnp.mean(1 - cosine), (out, before, after)

  function, expected_function = gradient_of(objective), quick(jax.value_and_grad(direct, has_aux=True))
  (expected, (out, before, after)), expected_gradients = expected_function(params, 2.4)
  (loss, found), gradients = function(params, state, batch, 4)
  assert float(found.metrics["lwf/distance"]) == pytest.approx(slow_distance(before, after), rel=1e-3)
  assert float(loss) == pytest.approx(float(expected), rel=1e-5) and float(loss) > float(out.loss)
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5)
  jax.tree.map(close, gradients, expected_gradients)
  assert float(found.weight) == float(out.weight)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found.state["objective"], out.state)
  nothing = {**state, "previous": jax.tree.map(lambda x: x * jnp.nan, params), "task": jnp.int32(0)}
  (loss, found), gradients = function(params, nothing, batch | {"task": jnp.asarray(ZERO)}, 4)
  jax.tree.map(close, (loss, gradients), (out.loss, expected_function(params, 0.0)[1]))
  assert float(found.metrics["lwf/distance"]) == 0


def test_gradient_equals_finite_differences():
  objective = LwF(objective=Shifted(), weight=5.0)
  params, state = objective.init(KEY, {})
  state = {**state, "previous": moved(params, 1.0), "task": jnp.int32(3)}
  function, batch = gradient_of(objective), batch_of(ONE, image=images(0))
  _, gradients = function(params, state, batch, 0)
  for place in np.ndindex(3, 4):
    value = lambda by, place=place: float(function({"w": params["w"].at[place].add(by)}, state, batch, 0)[0][0])
    assert float(gradients["w"][place]) == pytest.approx((value(1e-2) - value(-1e-2)) / 2e-2, rel=2e-2, abs=2e-3)


def test_eight_devices_see_the_same_task_and_distance():
  objective = LwF(objective=Shifted())
  params, state = objective.init(KEY, {})
  state = {**state, "previous": moved(params, 1.0), "task": jnp.int32(1)}
  function, mesh = gradient_of(objective), sharding.make_mesh()
  for task in (ZERO, np.eye(B, dtype=np.int32)[5] * 2):  # a replayed batch; one row of a new task
    batch = batch_of(task, image=images(0))
    (loss, out), gradients = function(params, state, batch, 0)
    with jax.set_mesh(mesh):
      placed = jax.device_put((params, state), sharding.replicated(mesh))
      other = function(*placed, jax.device_put(batch, sharding.batch_sharding(mesh)), 0)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, other, ((loss, out), gradients))


def test_in_the_trainers_step_a_task_begins_once_and_not_in_a_step_that_is_skipped():
  objective = LwF(objective=Shifted())
  transform = optax.with_extra_args_support(optax.sgd(0.1))
  step = jax.jit(make_step(objective, lambda keys, batch: batch, transform, accumulate=2), donate_argnums=0)
  params, inner = jax.jit(objective.init)(KEY, {})
  state = TrainState(jnp.int32(0), params, transform.init(params), inner, jax.random.key(1))
  state, _ = step(state, batch_of(ZERO, image=images(0)))
  before = jax.tree.map(np.array, state.params)
  state, metrics = step(state, batch_of(MIXED, image=images(1) * jnp.nan))
  assert float(metrics["train/skipped"]) == 1 and int(state.objective_state["task"]) == 0
  state, metrics = step(state, batch_of(1 - MIXED, image=images(1)))  # the second microbatch has replayed rows alone
  # Within the step the parameters stand still; the running mean does not, as it never does between microbatches.
  assert int(state.objective_state["task"]) == 1 and float(metrics["train/skipped"]) == 0
  equal(state.objective_state["previous"], before)
  assert float(np.abs(before["w"] - state.params["w"]).max()) > 1e-3


def test_all_else_is_the_objectives_with_its_own_state():
  objective = LwF(objective=Shifted())
  params, state = objective.init(KEY, {})
  inner = {"mean": jnp.arange(4.0), "updates": jnp.float32(2)}
  state = {**state, "objective": inner}
  batch = {"image": images(0)}
  equal(objective.encode(params, state, batch), Shifted().encode(params, inner, batch))
  equal(objective.show(params, state, batch, rng=KEY), Shifted().show(params, inner, batch, rng=KEY))
  found, after = objective.post_update(params, state, step=3)
  expected = Shifted().post_update(params, inner, step=3)
  equal((found, after), (expected[0], {**state, "objective": expected[1]}))
  assert objective.couples_examples


def test_what_only_some_objectives_have_is_found_where_it_is():
  ul2 = build(dict(name="lwf.LwF", objective=INNER["t5.T5"]), "objectives", where="objective")
  assert ul2.vocab_size == 30 and not ul2.couples_examples
  for name in ("predicted", "nats", "write"):
    assert getattr(ul2, name) == getattr(ul2.objective, name)
  assert not hasattr(build(dict(name="lwf.LwF", objective=INNER["mae"]), "objectives", where="objective"), "vocab_size")
  assert copy.deepcopy(ul2) == ul2 and pickle.loads(pickle.dumps(LwF(objective=Shifted()))) == LwF(objective=Shifted())


@pytest.mark.parametrize("weight", [-1.0, float("inf"), float("nan")])
def test_a_bad_weight(weight):
  with pytest.raises(UserError, match=r"lwf.LwF: weight .*, expected a finite number, 0 or more"):
    build(dict(name="lwf.LwF", objective=INNER["mae"], weight=weight), "objectives", where="objective")


def test_sections_nest():
  objective = build(dict(name="lwf.LwF", objective=INNER["mae"]), "objectives", where="objective")
  assert isinstance(objective, LwF) and isinstance(objective.objective, MAE)
  with pytest.raises(UserError, match=r"objective.objective: unknown key mask_ration \(did you mean mask_ratio\?"):
    build(dict(name="lwf.LwF", objective=INNER["mae"] | {"mask_ration": 1}), "objectives", where="objective")
