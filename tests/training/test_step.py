"""The step: accumulation, averages, what a step that is not finite leaves alone, one device or eight."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax import optim, sharding, transforms
from ssljax.training.state import create, initialiser, shardings
from ssljax.training.step import make_step
from ssljax.types import LossOutput, Objective

BATCH = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Regression(Objective):
  """Least squares over the rows that count; their number is the weight."""

  batch_keys = ("x", "y", "counted")

  def init(self, rng, batch):
    return {"w": jnp.ones(batch["x"].shape[1:])}, {"seen": jnp.zeros(())}

  def loss(self, params, state, batch, *, rng, step):
    error = (batch["x"] @ params["w"] - batch["y"]) ** 2 * batch["counted"]
    weight = jnp.sum(batch["counted"])
    loss = jnp.sum(error) / weight
    return LossOutput(loss=loss, state={"seen": state["seen"] + len(error)}, metrics={"mse": loss}, weight=weight)

  def encode(self, params, state, batch):
    return {}

  def post_update(self, params, state, *, step):
    return params, {"seen": state["seen"] + 0.5}


def batch(poison=False):
  random = np.random.default_rng(0)
  x = random.normal(size=(BATCH, 3)).astype(np.float32)
  if poison:
    x[5, 1] = np.nan
  counted = (np.arange(BATCH) % 3 > 0).astype(np.float32)  # an uneven number in each microbatch
  index = np.stack([np.zeros(BATCH), np.arange(BATCH)], axis=-1).astype(np.uint32)
  return {"x": x, "y": random.normal(size=BATCH).astype(np.float32), "counted": counted, "index": index}


def setup(*, devices=8, accumulate=1, **optimizer):
  mesh = sharding.make_mesh(devices=jax.devices()[:devices])
  transform = optim.sgd(learning_rate=0.1, momentum=0.9, **optimizer).transform
  init = initialiser(Regression(), transform, batch())
  like = shardings(mesh, jax.eval_shape(init, jax.ShapeDtypeStruct((), np.uint32)), ((".*", "replicate"),))
  step = jax.jit(make_step(Regression(), lambda keys, batch: batch, transform, accumulate=accumulate))
  return mesh, create(init, like, 0), step


def run(poisoned=(), steps=3, **options):
  mesh, state, step = setup(**options)
  history = []
  with jax.set_mesh(mesh):
    for number in range(steps):
      state, metrics = step(state, jax.device_put(batch(number in poisoned), sharding.batch_sharding(mesh)))
      history.append({key: float(value) for key, value in metrics.items()})
  return state, history


def test_accumulation_is_exact():
  whole, one = run()
  parts, two = run(accumulate=2)
  np.testing.assert_allclose(parts.params["w"], whole.params["w"], rtol=1e-6)
  for a, b in zip(one, two, strict=True):
    assert b["train/loss"] == pytest.approx(a["train/loss"], rel=1e-6) and b["mse"] == pytest.approx(a["mse"], rel=1e-6)
  assert float(whole.objective_state["seen"]) == float(parts.objective_state["seen"]) == 3 * BATCH + 1.5


def test_one_and_eight_devices():
  np.testing.assert_allclose(run(devices=1)[0].params["w"], run(devices=8)[0].params["w"], rtol=1e-6)


def test_a_step_that_is_not_finite_changes_nothing_but_the_count():
  clean, _ = run(steps=2)
  skipped, history = run(steps=3, poisoned=(1,))
  assert [line["train/skipped"] for line in history] == [0, 1, 0] and int(skipped.step) == 3
  for a, b in zip(jax.tree.leaves(skipped.replace(step=0)), jax.tree.leaves(clean.replace(step=0)), strict=True):
    a, b = (jax.random.key_data(x) if hasattr(x, "dtype") and x.dtype == jax.random.key(0).dtype else x for x in (a, b))
    np.testing.assert_array_equal(a, b)


def test_the_average_follows_the_parameters():
  decay, average, state = 0.5, np.ones(3, np.float32), None
  for steps in (1, 2, 3):
    state, _ = run(steps=steps, ema=decay)
    average = decay * average + (1 - decay) * np.asarray(state.params["w"])
  np.testing.assert_allclose(transforms.ema_params(state.opt_state)["w"], average, rtol=1e-6)
