"""SLA: joint labels, aggregation and distillation against the formulas, and what is said of labels."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.errors import UserError
from ssljax.models.resnet import ResNet
from ssljax.models.vit import ViT
from ssljax.objectives.sla import SLA, aggregate, color_permutations

BATCH, SIZE, CLASSES = 6, 8, 3
VIT = ViT(width=16, depth=1, heads=2, patch=4, image_size=SIZE)
OBJECTIVE = SLA(encoder=VIT, num_classes=CLASSES, temperature=2.0)
KEY = jax.random.key(7)


def make_batch():
  drawn = np.random.default_rng(0).normal(size=(BATCH, SIZE, SIZE, 3))
  index = np.stack([np.zeros(BATCH), np.arange(BATCH)], axis=1)
  label = jnp.arange(BATCH, dtype=jnp.int32) % CLASSES
  return {"image": jnp.asarray(drawn, jnp.float32), "index": jnp.asarray(index, jnp.uint32), "label": label}


def compiled(objective):
  """Parameters, state, and the compiled loss of a batch; the heads are made to say something."""
  params, state = jax.jit(objective.init)(jax.random.key(0), make_batch())
  params = params | {name: jax.tree.map(lambda x: 5 * x, params[name]) for name in objective.heads}
  return params, state, jax.jit(lambda p, s, b: objective.loss(p, s, b, rng=KEY, step=0))


@pytest.fixture(scope="module")
def tiny():
  return compiled(OBJECTIVE)


def log_softmax(x):
  return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def test_the_loss_is_of_joint_labels_with_what_they_say_together_distilled(tiny):
  params, state, loss = tiny
  batch = make_batch()
  out = loss(params, state, batch)
  encode = jax.jit(lambda x: VIT.apply({"params": params["encoder"]}, x)["embedding"])
  layer = lambda name, x: np.float64(x @ params[name]["fc1"]["kernel"] + params[name]["fc1"]["bias"])
  joint, aggregated = 0.0, np.zeros((BATCH, CLASSES))
  labels = np.asarray(batch["label"])
  for turn in range(4):
    embedding = encode(np.rot90(batch["image"], turn, axes=(1, 2)))
    logits = layer("joint", embedding)
    joint -= log_softmax(logits)[np.arange(BATCH), labels * 4 + turn].mean() / 4
    aggregated += logits[:, turn::4] / 4
  single = layer("single", encode(batch["image"]))
  own = -log_softmax(single)[np.arange(BATCH), labels].mean()
  p, q = log_softmax(aggregated / 2), log_softmax(single / 2)
  taught = 2**2 * np.sum(np.exp(p) * (p - q)) / BATCH
  found = [float(out.metrics[f"sla/{key}"]) for key in ("joint", "single", "distillation")]
  np.testing.assert_allclose(found, [joint, own, taught], rtol=1e-4)
  assert float(out.loss) == pytest.approx(joint + own + taught, rel=1e-4)
  assert float(out.metrics["sla/accuracy"]) == pytest.approx(np.mean(single.argmax(axis=1) == labels))
  assert float(out.metrics["sla/aggregated_accuracy"]) == pytest.approx(np.mean(aggregated.argmax(axis=1) == labels))
  classify = jax.jit(OBJECTIVE.classify)
  np.testing.assert_allclose(classify(params, state, batch["image"]), aggregated, rtol=1e-4, atol=1e-5)


def test_the_distillation_does_not_move_the_joint_classifier(tiny):
  params, state, _ = tiny

  def taught(params):
    return OBJECTIVE.loss(params, state, make_batch(), rng=KEY, step=0).metrics["sla/distillation"]

  gradient = jax.jit(jax.grad(taught))(params)
  largest = {name: max(float(jnp.abs(x).max()) for x in jax.tree.leaves(gradient[name])) for name in OBJECTIVE.heads}
  assert largest["joint"] == 0 and largest["single"] > 1e-3


def test_alone_the_joint_classifier_is_asked_for_the_picture_as_it_is():
  objective = dataclasses.replace(OBJECTIVE, transformation="color_permutation", single="none", over_changes="sum")
  params, state, loss = compiled(objective)
  batch = make_batch()
  out = loss(params, state, batch)
  assert params["joint"]["fc1"]["kernel"].shape == (16, 18) and "sla/single" not in out.metrics
  encode = jax.jit(objective.encode)
  logits = encode(params, state, batch)["logits"]
  images = np.asarray(color_permutations(batch["image"]))
  nats = 0.0
  for change in range(6):
    found = encode(params, state, {"image": images[:, change]})["embedding"]
    all_labels = np.float64(found @ params["joint"]["fc1"]["kernel"] + params["joint"]["fc1"]["bias"])
    nats -= log_softmax(all_labels)[np.arange(BATCH), np.asarray(batch["label"]) * 6 + change].mean()
    if change == 0:
      np.testing.assert_allclose(logits, all_labels[:, ::6], rtol=1e-4, atol=1e-5)
  assert float(out.loss) == pytest.approx(nats, rel=1e-4)


def test_changes_of_colour_are_all_orders_the_first_as_it_was():
  found = np.asarray(color_permutations(jnp.array([10, 20, 30])[None, None, None]))[0, :, 0, 0]
  assert found[0].tolist() == [10, 20, 30] and len({tuple(order) for order in found}) == 6
  assert (np.sort(found, axis=1) == [10, 20, 30]).all()


def test_aggregation_takes_each_change_under_its_own_label():
  logits = jnp.zeros((1, 2, 3, 2)).at[0, 0, :, 0].set(jnp.array([2.0, 4, 6])).at[0, 1, :, 1].set(1.0)
  logits = logits.at[0, 0, :, 1].set(99.0)  # what the unchanged picture says of the changed
  assert aggregate(logits).tolist() == [[1.5, 2.5, 3.5]]


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(num_classes=1), "num_classes 1, expected at least 2"),
    (dict(temperature=0.0), "temperature 0.0, expected more than 0"),
    (dict(transformation="rotate"), r"transformation rotate \(did you mean rotation\?"),
  ],
)
def test_bad_fields_are_named(options, message):
  with pytest.raises(UserError, match=f"sla.SLA: {message}"):
    dataclasses.replace(OBJECTIVE, **options)


def test_a_source_of_more_classes_is_refused():
  OBJECTIVE.check_labels(CLASSES, source="npz:x")
  with pytest.raises(UserError, match=r"objective\.num_classes: found 3, expected at least the 4 of npz:x"):
    OBJECTIVE.check_labels(CLASSES + 1, source="npz:x")


def test_batch_normalisation_couples_examples():
  assert SLA(encoder=ResNet(depth=18), num_classes=5).couples_examples
  assert not SLA(encoder=ViT(variant="Ti", patch=4, image_size=8), num_classes=5).couples_examples
