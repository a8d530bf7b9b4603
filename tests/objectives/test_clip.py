"""CLIP and SigLIP: the loss of the towers' projections, the temperature's clamp, and what does not fit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax import optim, sharding, transforms
from ssljax.build import build
from ssljax.errors import UserError
from ssljax.models.dual import DualEncoder, Tower
from ssljax.models.resnet import ResNet
from ssljax.models.text_tower import TextTower
from ssljax.models.vit import ViT
from ssljax.objectives.clip import CLIP, SigLIP
from ssljax.training.step import make_step
from ssljax.types import TrainState

BATCH, SIZE = 8, 8
VIT = ViT(width=16, depth=1, heads=2, patch=4, image_size=SIZE)
TEXT = TextTower(vocab_size=20, length=5, width=12, depth=1, heads=2)
TOWERS = dict(image=Tower(encoder=VIT, width=6), text=Tower(encoder=TEXT, width=6))
MODEL = DualEncoder(**TOWERS)
SIGMOID = DualEncoder(**TOWERS, initial_scale=10.0, initial_bias=-10.0)
KEY = jax.random.key(7)


def make_batch(seed=0):
  rng = np.random.default_rng(seed)
  index = np.stack([np.zeros(BATCH), np.arange(BATCH)], axis=1)
  return {
    "image": jnp.asarray(rng.normal(size=(BATCH, SIZE, SIZE, 3)), jnp.float32),
    "text": jnp.asarray(rng.integers(0, 20, (BATCH, 5)), jnp.int32),
    "index": jnp.asarray(index, jnp.uint32),
  }


@pytest.fixture(scope="module", params=[CLIP, SigLIP], ids=lambda kind: kind.__name__)
def tiny(request):
  """Objective, parameters, its loss and its features of the batch."""
  objective = request.param(model=MODEL if request.param is CLIP else SIGMOID)
  batch = make_batch()
  params, state = jax.jit(objective.init)(jax.random.key(0), batch)
  run = lambda p: (objective.loss(p, state, batch, rng=KEY, step=0), objective.encode(p, state, batch))
  return objective, params, *jax.jit(run)(params)


def cross_entropy(logits):
  return np.mean(np.log(np.exp(logits).sum(axis=1)) - np.diag(logits))


def test_the_loss_is_open_clips(tiny):
  """ClipLoss is (cross_entropy(l, i) + cross_entropy(l.T, i)) / 2, SigLipLoss -logsigmoid(m l).sum() / N."""
  objective, params, out, encoded = tiny
  image, text = (np.asarray(encoded[f"{key}_features"], np.float64) for key in ("image", "text"))
  np.testing.assert_allclose([np.linalg.norm(x, axis=1) for x in (image, text)], 1, rtol=1e-6)
  logits = np.exp(float(params["logit_scale"])) * image @ text.T
  if isinstance(objective, CLIP):
    expected = (cross_entropy(logits) + cross_entropy(logits.T)) / 2
  else:
    signs = 2 * np.eye(BATCH) - 1
    expected = np.logaddexp(0, -signs * (logits - 10)).sum() / BATCH
  assert float(out.loss) == pytest.approx(expected, rel=1e-5)
  assert float(out.metrics["contrastive/positive_cosine"]) == pytest.approx(np.sum(image * text, 1).mean(), abs=1e-5)


def test_starts_at_the_papers_temperature_and_bias(tiny):
  objective, params, out, _ = tiny
  scale, bias = (1 / 0.07, 0) if isinstance(objective, CLIP) else (10, -10)
  assert float(params["logit_scale"]) == pytest.approx(2.6592600 if scale > 10 else 2.3025851, abs=1e-6)
  assert float(out.metrics["contrastive/scale"]) == pytest.approx(scale, rel=1e-6)
  assert float(out.metrics["contrastive/bias"]) == bias


@pytest.mark.parametrize(("found", "after"), [(4.7, 4.6051702), (4.6, 4.6), (0.2, 0.2), (-0.1, 0.0)])
def test_the_scale_is_put_back_between_1_and_100(found, after):
  params = {"logit_scale": jnp.float32(found), "image": 1}
  moved, state = CLIP(model=MODEL).post_update(params, {}, step=0)
  assert float(moved["logit_scale"]) == pytest.approx(after) and moved["image"] == 1 and state == {}
  assert SigLIP(model=SIGMOID).post_update(params, {}, step=0)[0] is params  # the paper's is free


def test_the_bias_learns_from_the_share_of_pairs():
  """All features equal, so every logit is scale + bias: the gradient is sum of sigmoids less the pairs, over B."""
  objective = SigLIP(model=SIGMOID)
  same = jnp.ones((BATCH, 6))
  gradient = jax.grad(lambda bias: objective._loss(same, same, jnp.float32(10), bias))(jnp.float32(-9))
  assert float(gradient) == pytest.approx(BATCH / (1 + np.exp(-1)) - 1, rel=1e-5)


def test_texts_alone_are_encoded_too(tiny):
  objective, params, _, encoded = tiny
  batch = make_batch()
  texts = jax.jit(objective.encode)(params, {}, {"text": batch["text"]})
  assert set(texts) == {"embedding", "text_features"} and texts["embedding"].shape == (BATCH, 12)
  np.testing.assert_allclose(texts["text_features"], encoded["text_features"], rtol=1e-5, atol=1e-6)


def test_the_way_of_the_pairs_changes_nothing(tiny):
  """One step on eight devices, one example on each; the default is the dense matrix on one device."""
  objective, params, expected, _ = tiny
  run = lambda params, batch: dataclasses.replace(objective, pairs="ring").loss(params, {}, batch, rng=KEY, step=0)
  with jax.set_mesh(sharding.make_mesh()):
    placed = jax.device_put(make_batch(), sharding.batch_sharding(jax.sharding.get_mesh()))
    compiled = jax.jit(run).lower(params, placed).compile()
    out = compiled(params, placed)
  assert "collective-permute" in compiled.as_text() and objective.pairs == "dense"
  assert float(out.loss) == pytest.approx(float(expected.loss), rel=1e-5)


def test_locked_image_tuning_moves_the_text_and_not_the_image_tower():
  """Two steps of the trainer, weight decay and all, as `config.init` has them."""
  objective, rules = CLIP(model=MODEL), [("params/image/encoder/", "freeze")]
  transform = transforms.freeze(optim.adamw(learning_rate=0.1, weight_decay=0.1).transform, rules)
  params, state = jax.jit(objective.init)(jax.random.key(0), make_batch())
  make = lambda frozen: make_step(objective, lambda keys, batch: batch, transform, frozen=frozen)
  step = jax.jit(make(rules))
  trained = TrainState(jnp.int32(0), params, transform.init(params), state, KEY)
  products = [str(jax.make_jaxpr(make(frozen))(trained, make_batch())).count("dot_general") for frozen in (rules, ())]
  assert products[0] < products[1]  # nothing is computed backwards through the locked tower
  for seed in range(2):
    trained, metrics = step(trained, make_batch(seed))
  assert float(metrics["train/skipped"]) == 0
  moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), trained.params, params)
  assert max(jax.tree.leaves(moved["image"]["encoder"])) == 0
  assert moved["image"]["projection"]["kernel"] > 1e-3 and moved["logit_scale"] > 1e-3
  assert moved["text"]["encoder"]["blocks"]["mlp"]["fc1"]["kernel"] > 1e-3


def test_patch_dropout_is_in_the_loss_and_not_in_the_features(tiny):
  objective, params, out, encoded = tiny
  image = objective.model.image.clone(encoder=VIT.clone(patch_dropout=0.5))
  flip = dataclasses.replace(objective, model=objective.model.clone(image=image))
  run = lambda p: (flip.loss(p, {}, make_batch(), rng=KEY, step=0), flip.encode(p, {}, make_batch()))
  found, features = jax.jit(run)(params)
  assert abs(float(found.loss) - float(out.loss)) > 1e-4
  np.testing.assert_allclose(features["image_features"], encoded["image_features"], rtol=1e-5, atol=1e-6)


def test_batch_statistics_of_a_resnet_are_the_state():
  model = DualEncoder(image=Tower(encoder=ResNet(depth=18, stem="cifar"), width=6), text=TOWERS["text"])
  objective, batch = CLIP(model=model), make_batch()
  params, state = jax.eval_shape(objective.init, jax.random.key(0), batch)
  out = jax.eval_shape(lambda p, s: objective.loss(p, s, batch, rng=KEY, step=0), params, state)
  shapes = lambda tree: jax.tree.map(lambda leaf: leaf.shape, tree)
  assert shapes(out.state) == shapes(state) and "bn1" in state["image"]["encoder"]


@pytest.mark.parametrize(
  ("kind", "options", "message"),
  [
    (CLIP, dict(model=VIT), "clip.CLIP: model ViT, expected dual.DualEncoder"),
    (CLIP, dict(model=SIGMOID), "clip.CLIP: model.initial_bias -10.0, expected None"),
    (CLIP, dict(model=MODEL.clone(initial_scale=None)), "clip.CLIP: model.initial_scale None, expected a number"),
    (CLIP, dict(model=MODEL, max_scale=0.5), "clip.CLIP: max_scale 0.5, expected at least 1"),
    (SigLIP, dict(model=MODEL), "clip.SigLIP: model.initial_bias None, expected a number"),
    (SigLIP, dict(model=SIGMOID, pairs="rings"), "clip.SigLIP: pairs rings .did you mean ring"),
  ],
)
def test_bad_fields_are_named(kind, options, message):
  with pytest.raises(UserError, match=message):
    kind(**options)


def test_a_batch_of_one_has_no_negatives():
  with pytest.raises(UserError, match="batch of 1, expected at least 2"):
    CLIP(model=MODEL).init(jax.random.key(0), jax.tree.map(lambda x: x[:1], make_batch()))


def test_built_from_a_config_section():
  tower = lambda encoder: dict(name="dual.Tower", encoder=encoder, width=6)
  image, text = dict(name="vit.ViT", variant="Ti"), dict(name="text_tower.TextTower", vocab_size=20)
  model = dict(name="dual.DualEncoder", image=tower(image), text=tower(text), initial_bias=-10)
  objective = build(dict(name="clip.SigLIP", model=model, pairs="gather"), "objectives", where="objective")
  assert objective.model.text.encoder.vocab_size == 20 and objective.model.initial_bias == -10
