"""A student against a teacher in the state: the loss by loops, what moves, where the teacher comes from."""

import functools
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax import sharding, tree
from ssljax.build import build
from ssljax.errors import UserError
from ssljax.models.heads import MLPHead
from ssljax.models.resnet import ResNet
from ssljax.models.vit import ViT
from ssljax.objectives.classify import Classifier
from ssljax.objectives.distill import Distill
from ssljax.training import inherit

B, SIZE, CLASSES = 8, 8, 5
KEY = jax.random.key(7)
BIG = Classifier(
  encoder=ViT(width=16, depth=1, heads=2, patch=4, image_size=SIZE),
  num_classes=CLASSES,
  projector=MLPHead(layers=1, out=6, last_norm="affine"),
  head_std=1.0,
)
SMALL = Classifier(
  encoder=ViT(width=8, depth=1, heads=2, patch=4, image_size=SIZE), num_classes=CLASSES, head_std=1.0, smoothing=0.1
)


@pytest.fixture(scope="module")
def batch():
  draw = np.random.default_rng(0)
  image = jnp.asarray(draw.normal(size=(B, SIZE, SIZE, 3)), jnp.float32)
  index = np.stack([np.zeros(B), np.arange(B)], axis=1).astype(np.uint32)
  label = np.where(np.arange(B) % 3, draw.integers(0, CLASSES, B), -1)
  return {"image": image, "label": jnp.asarray(label), "index": jnp.asarray(index)}


@pytest.fixture(scope="module")
def states(batch):
  """Parameters and state of a student and a teacher, whose running statistics are not those of the batch."""
  params, state = jax.jit(Distill(student=SMALL, teacher=BIG).init)(jax.random.key(0), batch)
  norm = state["teacher_state"]["projector"]["bn1"]
  norm = {"mean": norm["mean"] + 0.5, "var": norm["var"] * 4}
  return params, state | {"teacher_state": {**state["teacher_state"], "projector": {"bn1": norm}}}


@functools.partial(jax.jit, static_argnums=0)
def encoded(objective, params, state, batch):
  return objective.encode(params, state, batch)


def softmax(x, temperature):
  z = sum(math.exp(v / temperature) for v in x)
  return [math.exp(v / temperature) / z for v in x]


@pytest.mark.parametrize(("temperature", "weight"), [(1.0, 0.0), (3.0, 0.25), (0.5, 1.0)])
def test_loss_by_loops(temperature, weight, states, batch):
  objective = Distill(student=SMALL, teacher=BIG, temperature=temperature, label_weight=weight)
  params, state = states
  run = jax.jit(lambda p, s, b: objective.loss(p, s, b, rng=KEY, step=0))
  out = run(params, state, batch)
  teacher = np.asarray(encoded(BIG, state["teacher"], state["teacher_state"], batch)["logits"], np.float64)
  student = np.asarray(encoded(SMALL, params, {"encoder": {}}, batch)["logits"], np.float64)
  distilled = supervised = 0.0
  for t, s, label in zip(teacher, student, np.asarray(batch["label"]), strict=True):
    pairs = zip(softmax(t, temperature), softmax(s, temperature), strict=True)
    distilled -= sum(p * math.log(q) for p, q in pairs) / B
    if label >= 0:
      q = softmax(s, 1.0)
      supervised -= (0.9 * math.log(q[label]) + 0.1 * sum(map(math.log, q)) / CLASSES) / B
  assert float(out.loss) == pytest.approx((1 - weight) * distilled + weight * supervised, rel=1e-4)
  assert float(out.metrics["distill/agreement"]) == np.mean(teacher.argmax(-1) == student.argmax(-1))
  assert out.weight == B


def test_the_teacher_neither_learns_nor_moves(states, batch):
  objective = Distill(student=SMALL, teacher=BIG, temperature=2.0)
  params, state = states

  def value(p, s):
    out = objective.loss(p, s, batch, rng=KEY, step=0)
    return out.loss, out.state

  run = jax.jit(jax.grad(value, argnums=(0, 1), has_aux=True))
  (ours, teachers), after = run(params, state)
  assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(ours)) > 1e-3
  assert not any(leaf.any() for leaf in jax.tree.leaves(teachers["teacher"]))
  for key in ("teacher", "teacher_state"):
    jax.tree.map(np.testing.assert_array_equal, after[key], state[key])


def test_the_least_loss_is_the_teachers_entropy(states, batch):
  """Of a student that is its teacher the loss is that, and nothing pulls."""
  objective, (params, _) = Distill(student=SMALL, teacher=SMALL, temperature=2.0), states
  state = {"student": {"encoder": {}}, "teacher": params, "teacher_state": {"encoder": {}}}
  loss = lambda p: objective.loss(p, state, batch, rng=KEY, step=0)
  run = jax.jit(lambda p: (loss(p), jax.grad(lambda p: loss(p).loss)(p)))
  out, gradient = run(params)
  p = jax.nn.softmax(encoded(SMALL, params, {"encoder": {}}, batch)["logits"] / 2.0)
  assert float(out.loss) == pytest.approx(float(-jnp.mean(jnp.sum(p * jnp.log(p), -1))), rel=1e-5)
  assert float(out.metrics["distill/agreement"]) == 1
  assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient)) < 1e-5


def test_labels_are_read_where_they_have_a_weight():
  assert Distill(student=SMALL, teacher=BIG).batch_keys == ("image",)
  assert Distill(student=SMALL, teacher=BIG, label_weight=0.1).batch_keys == ("image", "label")
  Distill(student=SMALL, teacher=BIG).check_labels(None, source="folder:x")
  with pytest.raises(UserError, match="but folder:x has no labels"):
    Distill(student=SMALL, teacher=BIG, label_weight=0.1).check_labels(None, source="folder:x")
  assert (
    Distill(student=BIG, teacher=SMALL).couples_examples and not Distill(student=SMALL, teacher=BIG).couples_examples
  )


def test_the_teacher_is_loaded_from_where_the_other_run_has_its_parameters(states, batch):
  """Also where the student is loaded from there too: then there are two copies."""
  mesh = sharding.make_mesh()
  both = lambda a, b: (BIG.init(a, batch), Distill(student=BIG, teacher=BIG).init(b, batch))
  initial = jax.jit(both)
  (params, state), others = initial(jax.random.key(3), jax.random.key(4))
  saved = dict(tree.named_leaves({"params": params, "objective_state": state}))
  saved |= {"step": jnp.int32(9), "opt_state/count": jnp.int32(9)}
  fresh = dict(zip(("params", "objective_state"), others, strict=True))
  whole = sharding.replicated(mesh)
  like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), fresh)
  rules = [("^objective_state/teacher/", "load params/"), ("^objective_state/teacher_state/", "load objective_state/")]
  job = types.SimpleNamespace(init=[*rules, ("^objective_state/student", "reinit")], seed=0)
  run = types.SimpleNamespace(like=like, job=job, init=lambda seed: fresh)
  said = []
  got = inherit.inherit(run, saved, place="there", say=said.append)
  jax.tree.map(np.testing.assert_array_equal, got["objective_state"]["teacher"], params)
  jax.tree.map(np.testing.assert_array_equal, got["objective_state"]["teacher_state"], state)
  jax.tree.map(np.testing.assert_array_equal, got["params"], params)
  pointers = [leaf.addressable_shards[0].data.unsafe_buffer_pointer() for leaf in jax.tree.leaves(got)]
  assert len(set(pointers)) == len(pointers)
  assert "2 left behind (opt_state/count, step)" in said[0]
  job.init[0] = ("^objective_state/teacher/", "load nowhere/")
  with pytest.raises(UserError, match="there does not fit: nowhere/encoder/blocks/attn/proj/bias is missing"):
    inherit.inherit(run, saved, place="there")


def test_a_student_leaves_as_a_classifier_does(states, batch):
  objective = Distill(student=SMALL, teacher=BIG)
  params, state = states
  assert {name: (part.params, part.state) for name, part in objective.parts().items()} == {
    "encoder": ("encoder", "student/encoder")
  }
  found = encoded(objective, params, state, batch)
  jax.tree.map(np.testing.assert_array_equal, found, encoded(SMALL, params, state["student"], batch))


@pytest.mark.parametrize(
  ("keys", "message"),
  [
    (dict(temperature=0.0), "temperature 0.0, expected a finite number above 0"),
    (dict(temperature=float("inf")), "temperature inf"),
    (dict(label_weight=1.5), "label_weight 1.5, expected a share"),
    (dict(label_weight=-0.1), "label_weight -0.1"),
    (dict(student=Classifier(encoder=ResNet(), num_classes=4)), "student of 4 classes, expected 5 as the teacher has"),
    (dict(teacher=ViT()), "teacher ViT, expected classify.Classifier"),
  ],
)
def test_bad_fields_are_named(keys, message):
  with pytest.raises(UserError, match=f"distill.Distill: {message}"):
    Distill(**(dict(student=SMALL, teacher=BIG) | keys))


def test_built_from_config_sections():
  network = dict(name="classify.Classifier", encoder=dict(name="vit.ViT", variant="Ti"), num_classes=3)
  objective = build(dict(name="distill.Distill", student=network, teacher=network), "objectives", where="objective")
  assert objective.teacher.num_classes == 3 and isinstance(objective.student.encoder, ViT)
