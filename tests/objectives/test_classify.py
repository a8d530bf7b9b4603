"""A classifier over an encoder: its head, the projector's first layers under it, what it says of labels."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from ssljax import tree
from ssljax.build import build
from ssljax.commands.configs import load_config
from ssljax.errors import UserError
from ssljax.losses.classification import smoothed_cross_entropy
from ssljax.models.heads import MLPHead
from ssljax.models.layers import BatchNorm
from ssljax.models.resnet import ResNet
from ssljax.models.vit import ViT
from ssljax.objectives.classify import Classifier
from ssljax.objectives.simclr import SimCLR
from ssljax.training.run import assemble

B, SIZE, CLASSES = 8, 8, 5
KEY = jax.random.key(7)
CONFIG = str(pathlib.Path(__file__).parents[1] / "tiny_config.py") + ":bare"


class Convolution(nn.Module):
  """The smallest encoder with batch statistics."""

  features: int = 6

  @nn.compact
  def __call__(self, images, *, keys=None, train=False):
    del keys
    x = BatchNorm(use_running_average=not train, name="bn")(nn.Conv(self.features, (3, 3), name="conv")(images))
    return {"embedding": jnp.mean(nn.relu(x), axis=(1, 2))}


FIRST_LAYER = MLPHead(layers=1, out=6, last_norm="affine")


@pytest.fixture(scope="module")
def batch():
  draw = np.random.default_rng(0)
  image = jnp.asarray(draw.normal(size=(B, SIZE, SIZE, 3)), jnp.float32)
  index = np.stack([np.zeros(B), np.arange(B)], axis=1).astype(np.uint32)
  return {"image": image, "label": jnp.asarray(draw.integers(0, CLASSES, B)), "index": jnp.asarray(index)}


@pytest.fixture(scope="module")
def tiny(batch):
  """An encoder with batch statistics, a projector's first layer, and a head that says something."""
  objective = Classifier(encoder=Convolution(), num_classes=CLASSES, projector=FIRST_LAYER, smoothing=0.1, head_std=1.0)
  params, state = jax.jit(objective.init)(jax.random.key(0), batch)
  run = jax.jit(lambda p, s, b: objective.loss(p, s, b, rng=KEY, step=0))
  return objective, params, state, run


def by_hand(params, state, images, *, train):
  """The logits, and the mean and variance of the projector's normalisation, from the layers' formulas."""
  encoder = {"params": params["encoder"], "batch_stats": state["encoder"]}
  out, _ = Convolution().apply(encoder, images, train=train, mutable=["batch_stats"])
  hidden = np.asarray(out["embedding"] @ params["projector"]["fc1"]["kernel"])
  norm, held = params["projector"]["bn1"], state["projector"]["bn1"]
  mean, var = (hidden.mean(0), hidden.var(0)) if train else (held["mean"], held["var"])
  hidden = np.maximum((hidden - mean) / np.sqrt(var + 1e-5) * norm["scale"] + norm["bias"], 0)
  return hidden @ params["head"]["kernel"] + params["head"]["bias"], mean


def test_loss_is_the_cross_entropy_of_the_head_over_the_projectors_first_layer(tiny, batch):
  _, params, state, run = tiny
  out = run(params, state, batch)
  logits, mean = by_hand(params, state, batch["image"], train=True)
  expected = np.mean(smoothed_cross_entropy(jnp.asarray(logits), batch["label"], smoothing=0.1))
  assert float(out.loss) == pytest.approx(float(expected), rel=1e-4) and out.weight == B
  right = np.mean(logits.argmax(-1) == np.asarray(batch["label"]))
  assert float(out.metrics["classify/accuracy"]) == pytest.approx(right)
  np.testing.assert_allclose(out.state["projector"]["bn1"]["mean"], 0.1 * mean, rtol=1e-4, atol=1e-6)
  assert float(jnp.abs(out.state["encoder"]["bn"]["mean"] - state["encoder"]["bn"]["mean"]).max()) > 1e-3


def test_encode_normalises_by_the_running_statistics(tiny, batch):
  objective, params, state, run = tiny
  moved = run(params, state, batch).state
  encode = jax.jit(objective.encode)
  found = encode(params, moved, batch)
  np.testing.assert_allclose(
    found["logits"], by_hand(params, moved, batch["image"], train=False)[0], rtol=1e-4, atol=1e-5
  )
  alone = encode(params, moved, batch | {"image": batch["image"].at[1:].set(0.0)})
  np.testing.assert_allclose(alone["logits"][0], found["logits"][0], rtol=1e-4, atol=1e-5)


def test_parameters_lie_where_simclr_has_them(batch):
  encoder = ViT(width=16, depth=1, heads=2, patch=4, image_size=SIZE)
  simclr = SimCLR(encoder=encoder, projector_hidden=12, projector_out=4, projector_layers=3)
  before = jax.eval_shape(simclr.init, KEY, {"views": jax.ShapeDtypeStruct((B, 2, SIZE, SIZE, 3), jnp.float32)})
  first = MLPHead(layers=1, out=12, last_norm="affine")
  after = jax.eval_shape(Classifier(encoder=encoder, num_classes=CLASSES, projector=first).init, KEY, batch)
  named = lambda pair: {name: leaf.shape for part in pair for name, leaf in tree.named_leaves(part)}
  new = {name for name in named(after) if named(before).get(name) != named(after)[name]}
  assert new == {"head/kernel", "head/bias"} and "projector/bn1/mean" in named(after)


def test_the_head_starts_small_or_at_zero(batch):
  heads = {}
  for std in (2e-5, 0.0):
    objective = Classifier(encoder=Convolution(features=64), num_classes=CLASSES, head_std=std)
    params, _ = jax.jit(objective.init)(jax.random.key(0), batch)
    heads[std] = np.asarray(params["head"]["kernel"])
    assert not params["head"]["bias"].any() and "projector" not in params
  assert not heads[0.0].any() and heads[2e-5].std() == pytest.approx(2e-5, rel=0.15)
  assert np.abs(heads[2e-5]).max() < 2.4e-5 * 2


def test_stochastic_depth_follows_the_position_in_the_stream(batch):
  encoder = ViT(width=16, depth=2, heads=2, patch=4, image_size=SIZE, drop_path=0.9)
  objective = Classifier(encoder=encoder, num_classes=CLASSES, head_std=1.0)
  params, state = jax.jit(objective.init)(jax.random.key(0), batch)
  run = jax.jit(lambda b: objective.loss(params, state, b, rng=KEY, step=0).loss)
  value = float(run(batch))
  assert float(run(jax.tree.map(lambda x: x[::-1], batch))) == pytest.approx(value, rel=1e-4)
  assert float(run(batch | {"index": batch["index"] + jnp.uint32(B)})) != pytest.approx(value, rel=1e-3)


def test_batch_normalisation_couples():
  assert not Classifier(encoder=ViT(), num_classes=2).couples_examples
  assert Classifier(encoder=ViT(), num_classes=2, projector=FIRST_LAYER).couples_examples
  assert Classifier(encoder=ResNet(), num_classes=2).couples_examples


@pytest.mark.parametrize(
  ("keys", "message"),
  [
    (dict(num_classes=1), "num_classes 1, expected at least 2"),
    (dict(num_classes=2, smoothing=1.0), "smoothing 1.0, expected a share"),
    (dict(num_classes=2, smoothing=-0.1), "smoothing -0.1"),
    (dict(num_classes=2, head_std=-1.0), "head_std -1.0"),
    (dict(num_classes=2, head_std=float("nan")), "head_std nan"),
    (dict(num_classes=2, projector=ViT()), "projector ViT, expected heads.MLPHead"),
  ],
)
def test_bad_fields_are_named(keys, message):
  with pytest.raises(UserError, match=f"classify.Classifier: {message}"):
    Classifier(encoder=ViT(), **keys)


def test_built_from_a_config_section():
  head = dict(name="heads.MLPHead", layers=1, out=8, last_norm="affine")
  section = dict(
    name="classify.Classifier", encoder=dict(name="resnet.ResNet", depth=18), num_classes=3, projector=head
  )
  objective = build(section, "objectives", where="objective")
  assert objective.num_classes == 3 and objective.projector.last_norm == "affine" and set(objective.parts()) == {
    "encoder", "projector",
  }  # fmt: skip


@pytest.mark.parametrize(
  ("labels", "count", "message"),
  [
    (None, 5, r"classify.Classifier reads 'label', but npz:\S*pictures.npz has no labels"),
    (range(20), 5, r"objective.num_classes: found 5, expected at least the 20 of npz:\S*pictures.npz"),
  ],
)
def test_sources_that_do_not_fit_are_named(labels, count, message, tmp_path, monkeypatch):
  monkeypatch.setenv("SSLJAX_TEST_DATA", str(tmp_path))
  arrays = {} if labels is None else {"label": np.array(labels)}
  np.savez(tmp_path / "pictures.npz", image=np.zeros((20, 20, 20, 3), np.uint8), **arrays)
  config = load_config(CONFIG)
  config["objective"] = dict(name="classify.Classifier", encoder=config["objective"]["encoder"], num_classes=count)
  with pytest.raises(UserError, match=message):
    assemble(config)
