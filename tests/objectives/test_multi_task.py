"""Multi-task: the weighted sum of objectives on one encoder, what they share, and what each keeps."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from ssljax import tree
from ssljax.build import build
from ssljax.errors import UserError
from ssljax.models.layers import BatchNorm
from ssljax.models.vit import ViT
from ssljax.objectives.multi_task import MultiTask
from ssljax.objectives.rotnet import RotNet
from ssljax.objectives.simclr import SimCLR
from ssljax.objectives.sla import SLA
from ssljax.schedules import linear
from ssljax.types import LossOutput, Objective, Part

BATCH, SIZE = 4, 8
VIT = ViT(width=16, depth=1, heads=2, patch=4, image_size=SIZE)
KEY = jax.random.key(7)


class Convolution(nn.Module):
  """The smallest encoder with batch statistics."""

  features: int = 6
  dtype: str = "float32"

  @nn.compact
  def __call__(self, images, *, keep=None, keys=None, train=False):
    x = BatchNorm(use_running_average=not train, name="bn")(nn.Conv(self.features, (3, 3), name="conv")(images))
    return {"embedding": jnp.mean(nn.relu(x), axis=(1, 2))}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Follower(Objective):
  """The smallest objective with a teacher of its encoder, which lies where other objectives' do not."""

  encoder: nn.Module
  batch_keys: ClassVar[tuple[str, ...]] = ("image",)

  def parts(self):
    return {
      "encoder": Part(self.encoder, "student/encoder", "stats/encoder", "teacher/encoder", "teacher_stats/encoder")
    }

  def init(self, rng, batch):
    found = self.encoder.init(rng, jnp.zeros((1, *batch["image"].shape[1:])))
    state = {"stats": {"encoder": found["batch_stats"]}, "teacher": {"encoder": found["params"]}}
    return {"student": {"encoder": found["params"], "scale": jnp.ones(())}}, state

  def loss(self, params, state, batch, *, rng, step):
    run = lambda params: self.encoder.apply(
      {"params": params, "batch_stats": state["stats"]["encoder"]}, batch["image"], train=True, mutable=["batch_stats"]
    )
    out, changed = run(params["student"]["encoder"])
    taught, _ = run(state["teacher"]["encoder"])
    loss = params["student"]["scale"] * jnp.mean((out["embedding"] - 2 * taught["embedding"]) ** 2)
    draw = jax.random.uniform(rng)
    return LossOutput(
      loss=loss, state={**state, "stats": {"encoder": changed["batch_stats"]}}, metrics={"follower/draw": draw}
    )

  def encode(self, params, state, batch):
    variables = {"params": params["student"]["encoder"], "batch_stats": state["stats"]["encoder"]}
    return self.encoder.apply(variables, batch["image"])

  def post_update(self, params, state, *, step):
    teacher = tree.moved(state["teacher"]["encoder"], params["student"]["encoder"], decay=0.5)
    conv = params["student"]["encoder"]["conv"]
    encoder = {**params["student"]["encoder"], "conv": {**conv, "bias": 0 * conv["bias"]}}  # a constraint
    return {"student": {**params["student"], "encoder": encoder}}, {**state, "teacher": {"encoder": teacher}}

  def imported(self, params, state):
    return {**state, "teacher": {"encoder": params["student"]["encoder"]}}


def make_batch(keys):
  drawn = jnp.asarray(np.random.default_rng(0).normal(size=(BATCH, 2, SIZE, SIZE, 3)), jnp.float32)
  index = jnp.asarray(np.stack([np.zeros(BATCH), np.arange(BATCH)], axis=1), jnp.uint32)
  leaves = {"views": drawn, "image": drawn[:, 0]}
  return {key: leaves[key] for key in keys} | {"index": index}


def compiled(objective):
  """Parameters, state, and the compiled value and gradient of the loss at a step."""
  batch = make_batch(objective.batch_keys)
  params, state = jax.jit(objective.init)(jax.random.key(0), batch)

  def run(params, state, step):
    def value(params):
      out = objective.loss(params, state, batch, rng=KEY, step=step)
      return out.loss, out

    gradients, out = jax.grad(value, has_aux=True)(params)
    return out, gradients

  return params, state, jax.jit(run)


def test_the_loss_and_the_gradients_are_the_weighted_sums():
  """MAE, which sees the first view, beside SimCLR, whose weight follows the step."""
  mae = dict(name="mae.MAE", decoder_width=8, decoder_depth=1, decoder_heads=2)
  simclr = SimCLR(encoder=VIT, projector_out=4, projector_layers=1, temperature=0.5)
  objective = MultiTask(
    encoder=VIT, tasks={"mae": mae, "simclr": simclr}, weights={"simclr": linear(peak=1.0, total_steps=4)}
  )
  assert objective.batch_keys == ("views",) and objective.couples_examples
  params, state, run = compiled(objective)
  assert sorted(params["tasks"]["mae"]) == ["decoder", "encoder"] and "blocks" in params["encoder"]
  assert params["tasks"]["mae"]["encoder"] == {} == params["tasks"]["simclr"]["encoder"]
  out, gradients = run(params, state, 1)

  def alone(name, number, key):
    def value(encoder):
      held = params["tasks"][name] | {"encoder": encoder}
      random = jax.random.fold_in(KEY, number)
      return objective.objectives[name].loss(held, state["tasks"][name], make_batch((key,)), rng=random, step=1).loss

    return jax.value_and_grad(value)(params["encoder"])

  both = jax.jit(lambda: (alone("mae", 0, "image"), alone("simclr", 1, "views")))
  (first, of_first), (second, of_second) = both()
  assert float(out.metrics["mae/loss"]) == pytest.approx(float(first), rel=1e-5)
  assert float(out.metrics["simclr/loss"]) == pytest.approx(float(second), rel=1e-5)
  assert float(out.loss) == pytest.approx(float(first) + 0.75 * float(second), rel=1e-5)
  assert "simclr/contrastive_accuracy" in out.metrics
  expected = jax.tree.map(lambda x, y: x + 0.75 * y, of_first, of_second)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5), gradients["encoder"], expected)


@pytest.fixture(scope="module")
def followed():
  """Two objectives on an encoder with batch statistics, the second with a teacher."""
  encoder = Convolution()
  objective = MultiTask(encoder=encoder, tasks={"turn": RotNet(encoder=encoder), "follow": Follower(encoder=encoder)})
  return objective, *compiled(objective)


def test_batch_statistics_are_moved_by_every_task_in_order(followed):
  objective, params, state, run = followed
  out, _ = run(params, state, 0)
  images = make_batch(("image",))["image"]
  once = lambda images, mean: (
    0.9 * mean + 0.1 * np.mean(nn.Conv(6, (3, 3)).apply({"params": params["encoder"]["conv"]}, images), axis=(0, 1, 2))
  )
  turned = jnp.concatenate([jnp.rot90(images, turn, axes=(1, 2)) for turn in range(4)])
  expected = once(images, once(turned, 0.0))
  np.testing.assert_allclose(out.state["encoder"]["bn"]["mean"], expected, rtol=1e-4, atol=1e-6)
  assert jax.tree.structure(out.state) == jax.tree.structure(state)
  found = jax.jit(objective.encode)(params, out.state, {"image": images})
  assert found["logits"].shape == (BATCH, 4)


def test_a_teacher_is_of_the_shared_encoder_and_follows_it(followed):
  objective, params, state, _ = followed
  kernel = lambda tree: np.asarray(tree["encoder"]["conv"]["kernel"])
  teacher = lambda state: kernel(state["tasks"]["follow"]["teacher"])
  np.testing.assert_array_equal(teacher(state), kernel(params))
  moved = {**params, "encoder": jax.tree.map(lambda x: x + 1, params["encoder"])}
  after, held = objective.post_update(moved, state, step=0)
  np.testing.assert_allclose(teacher(held), kernel(params) + 0.5, rtol=1e-6)
  np.testing.assert_array_equal(kernel(after), kernel(moved))
  assert not np.any(after["encoder"]["conv"]["bias"])  # what a task's `post_update` made of the encoder
  np.testing.assert_array_equal(teacher(objective.imported(moved, held)), kernel(moved))
  parts = objective.parts()
  assert list(parts) == ["encoder"]
  assert parts["encoder"][1:] == (
    "encoder",
    "encoder",
    "tasks/follow/teacher/encoder",
    "tasks/follow/teacher_stats/encoder",
  )


def test_tasks_draw_numbers_of_their_own(followed):
  _, params, state, run = followed
  out, _ = run(params, state, 0)
  assert float(out.metrics["follow/follower_draw"]) != float(jax.random.uniform(jax.random.fold_in(KEY, 0)))
  assert float(out.metrics["follow/follower_draw"]) == float(jax.random.uniform(jax.random.fold_in(KEY, 1)))


def test_parts_of_tasks_are_named_by_them_and_pictures_too():
  mae = dict(name="mae.MAE", decoder_width=8, decoder_depth=1, decoder_heads=2)
  objective = MultiTask(encoder=VIT, tasks={"fill": mae})
  parts = objective.parts()
  assert parts["fill_decoder"] == Part(objective.objectives["fill"].decoder, "tasks/fill/decoder", None)
  batch = make_batch(("image",))
  params, state = jax.eval_shape(objective.init, KEY, batch)
  shown = jax.eval_shape(lambda *args: objective.show(*args, rng=KEY), params, state, batch)
  assert [name.partition(":")[0] for name in shown] == ["fill"]
  assert objective.batch_keys == ("image",) and not objective.couples_examples


def test_labels_are_checked_by_the_task_that_reads_them():
  objective = MultiTask(encoder=VIT, tasks={"turn": RotNet(encoder=VIT), "sort": SLA(encoder=VIT, num_classes=3)})
  assert objective.batch_keys == ("image", "label")
  objective.check_labels(3, source="npz:x")
  with pytest.raises(
    UserError, match=r"objective\.tasks\.sort\.num_classes: found 3, expected at least the 4 of npz:x"
  ):
    objective.check_labels(4, source="npz:x")


SIMCLR = dict(name="simclr.SimCLR")
ENCODER = dict(name="vit.ViT", variant="Ti", patch=4, image_size=SIZE)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(tasks={}), "objective.tasks: found none, expected at least one"),
    (dict(tasks=dict(a=SIMCLR | dict(name="simclr.SimClr"))), r"objective.tasks.a.name: nothing is called .*SimCLR"),
    (dict(tasks=dict(a=SIMCLR | dict(temprature=1))), r"objective.tasks.a: unknown key temprature .*temperature"),
    (dict(tasks=dict(a=SIMCLR | dict(encoder=ENCODER | dict(patch=8)))), "objective.tasks.a.encoder: found another"),
    (
      dict(tasks=dict(a=dict(name="ul2.UL2", model=dict(name="t5.T5", vocab_size=40)))),
      "objective.tasks.a: UL2 has no part called",
    ),
    (dict(tasks=dict(a=SIMCLR), weights=dict(b=1.0)), "objective.weights.b: no such task, expected one of a"),
    (dict(tasks=dict(a=SIMCLR), weights=dict(a=-1.0)), "objective.weights.a: found -1.0, expected a number, 0 or more"),
    (dict(tasks=dict(a=SIMCLR), weights=dict(a="1")), "objective.weights.a: found '1', expected a number, 0 or more"),
  ],
)
def test_bad_sections_are_named(options, message):
  section = dict(name="multi_task.MultiTask", encoder=ENCODER) | options
  with pytest.raises(UserError, match=message):
    build(section, "objectives", where="objective")


def test_a_task_may_give_the_same_encoder_and_a_weight_a_schedule():
  section = dict(
    name="multi_task.MultiTask",
    encoder=ENCODER,
    tasks=dict(a=SIMCLR | dict(encoder=ENCODER), b=dict(name="rotnet.RotNet")),
    weights=dict(a=dict(name="linear", peak=1.0, total_steps=2)),
  )
  objective = build(section, "objectives", where="objective")
  assert objective.objectives["b"].encoder == objective.encoder == objective.objectives["a"].encoder
  assert isinstance(objective.objectives["a"], SimCLR) and isinstance(objective.objectives["b"], RotNet)
