"""ConVIRT: the weighted pair of cross entropies, its first layers frozen by number, and what does not fit."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax import optim, sharding, transforms
from ssljax.build import build
from ssljax.errors import UserError
from ssljax.models.bert import Bert
from ssljax.models.dual import DualEncoder, Tower
from ssljax.models.vit import ViT
from ssljax.objectives.clip import CLIP
from ssljax.objectives.convirt import ConVIRT
from ssljax.training import inherit
from ssljax.training.step import make_step
from ssljax.types import TrainState

BATCH, SIZE = 8, 8
VIT = ViT(width=16, depth=1, heads=2, patch=4, image_size=SIZE)
BERT = Bert(vocab_size=20, length=5, width=8, depth=3, heads=2)
MODEL = DualEncoder(*(Tower(encoder=e, width=6, layers=2) for e in (VIT, BERT)), initial_scale=None)
OBJECTIVE = ConVIRT(model=MODEL)
KEY = jax.random.key(7)
FROZEN = [
  ("params/text/encoder/(token_embedder|pos_embed|type_embed|norm_pre)", "freeze"),
  ("params/text/encoder/blocks/[0-1]/", "freeze"),
]


def make_batch(seed=0):
  rng = np.random.default_rng(seed)
  index = np.stack([np.zeros(BATCH), np.arange(BATCH)], axis=1)
  return {
    "image": jnp.asarray(rng.normal(size=(BATCH, SIZE, SIZE, 3)), jnp.float32),
    "text": jnp.asarray(rng.integers(1, 20, (BATCH, 5)), jnp.int32),
    "index": jnp.asarray(index, jnp.uint32),
  }


@pytest.fixture(scope="module")
def tiny():
  """Parameters, the loss and the features of the batch."""
  params, state = jax.jit(OBJECTIVE.init)(jax.random.key(0), make_batch())
  run = lambda p: (OBJECTIVE.loss(p, state, make_batch(), rng=KEY, step=0), OBJECTIVE.encode(p, state, make_batch()))
  return params, *jax.jit(run)(params)


def cross_entropy(logits):
  return np.mean(np.log(np.exp(logits).sum(axis=1)) - np.diag(logits))


def test_three_quarters_are_the_images(tiny):
  params, out, found = tiny
  image, text = (np.asarray(found[f"{key}_features"], np.float64) for key in ("image", "text"))
  logits = image @ text.T / 0.1
  assert float(out.loss) == pytest.approx(0.75 * cross_entropy(logits) + 0.25 * cross_entropy(logits.T), rel=1e-5)
  assert "logit_scale" not in params and set(out.metrics) == {"contrastive/positive_cosine"}


def test_the_way_of_the_pairs_changes_nothing(tiny):
  params, expected, _ = tiny
  ring = dataclasses.replace(OBJECTIVE, pairs="ring")
  with jax.set_mesh(sharding.make_mesh()):
    placed = jax.device_put(make_batch(), sharding.batch_sharding(jax.sharding.get_mesh()))
    compiled = jax.jit(lambda p, b: ring.loss(p, {}, b, rng=KEY, step=0)).lower(params, placed).compile()
    out = compiled(params, placed)
  assert "collective-permute" in compiled.as_text()
  assert float(out.loss) == pytest.approx(float(expected.loss), rel=1e-5)


def test_the_text_towers_first_layers_stay_where_init_freezes_them(tiny):
  params = tiny[0]
  transform = transforms.freeze(optim.adamw(learning_rate=0.1, weight_decay=0.1).transform, FROZEN)
  step = make_step(OBJECTIVE, lambda keys, batch: batch, transform, frozen=FROZEN)
  step = jax.jit(step)
  state, metrics = step(TrainState(jnp.int32(0), params, transform.init(params), {}, KEY), make_batch())
  assert float(metrics["train/skipped"]) == 0
  text = jax.tree.map(lambda a, b: np.abs(a - b), state.params["text"], params["text"])
  blocks = [[float(leaf[layer].max()) for leaf in jax.tree.leaves(text["encoder"]["blocks"])] for layer in range(3)]
  assert max(blocks[0] + blocks[1]) == 0 and sorted(blocks[2])[-6] > 1e-3
  others = {key: value for key, value in text["encoder"].items() if key != "blocks"}
  assert max(float(leaf.max()) for leaf in jax.tree.leaves(others)) == 0
  assert float(text["projection"]["fc1"]["kernel"].max()) > 1e-3


@pytest.mark.parametrize(
  ("rule", "found"),
  [(FROZEN[1], True), (("blocks/attn/qkv", "freeze"), True), (("text/encoder/blocks/3/", "freeze"), False),
   (("text/encoder/blocks/0/", "reinit"), False), (("image/encoder/blocks/attn", "reinit"), True)],
)  # fmt: skip
def test_rules_by_layer_are_for_freezing_and_must_find_a_layer(rule, found, monkeypatch):
  like = jax.eval_shape(OBJECTIVE.init, jax.random.key(0), make_batch())[0]
  run = types.SimpleNamespace(like={"params": like}, job=types.SimpleNamespace(init=[rule], seed=0), init=None)
  monkeypatch.setattr(inherit.state_lib, "create", lambda *_: like["nothing after the rules"])
  with pytest.raises(KeyError if found else UserError, match="nothing after the rules" if found else "matches no path"):
    inherit.inherit(run, {}, place="here")


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(temperature=0.0), "convirt.ConVIRT: temperature 0.0, expected more than 0"),
    (dict(image_weight=1.2), "convirt.ConVIRT: image_weight 1.2, expected a share"),
    (dict(model=MODEL.clone(initial_scale=10.0)), "model.initial_scale 10.0, expected None"),
    (dict(model=MODEL.clone(initial_bias=-10.0)), "model.initial_bias -10.0, expected None"),
    (dict(model=VIT), "convirt.ConVIRT: model ViT, expected dual.DualEncoder"),
  ],
)
def test_bad_fields_are_named(options, message):
  with pytest.raises(UserError, match=message):
    dataclasses.replace(OBJECTIVE, **options)
  with pytest.raises(UserError, match="initial_scale None, expected a number"):
    CLIP(model=MODEL)


def test_built_from_a_config_section():
  tower = lambda encoder: dict(name="dual.Tower", encoder=encoder, width=512, layers=2)
  image, text = dict(name="resnet.ResNet"), dict(name="bert.Bert", vocab_size=300)
  model = dict(name="dual.DualEncoder", image=tower(image), text=tower(text), initial_scale=None)
  objective = build(dict(name="convirt.ConVIRT", model=model), "objectives", where="objective")
  assert objective.temperature == 0.1 and objective.model.features == 2048
