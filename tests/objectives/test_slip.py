"""SLIP: the sum of its two losses, each on its own views, and what does not fit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.augment.views import Views
from ssljax.build import build
from ssljax.errors import UserError
from ssljax.losses.contrastive import nt_xent
from ssljax.models.dual import DualEncoder, Tower
from ssljax.models.text_tower import TextTower
from ssljax.models.vit import ViT
from ssljax.objectives.clip import CLIP
from ssljax.objectives.slip import SLIP

BATCH, SIZE = 8, 8
VIT = ViT(width=16, depth=1, heads=2, patch=4, image_size=SIZE)
TEXT = TextTower(vocab_size=20, length=5, width=12, depth=1, heads=2)
INNER = CLIP(model=DualEncoder(image=Tower(encoder=VIT, width=6), text=Tower(encoder=TEXT, width=6)))
OBJECTIVE = SLIP(image_text=INNER, weight=0.5, projector_hidden=10, projector_out=4, temperature=0.3)
KEY = jax.random.key(7)


def make_batch(views=3):
  rng = np.random.default_rng(0)
  index = np.stack([np.zeros(BATCH), np.arange(BATCH)], axis=1)
  return {
    "views": jnp.asarray(rng.normal(size=(BATCH, views, SIZE, SIZE, 3)), jnp.float32),
    "text": jnp.asarray(rng.integers(0, 20, (BATCH, 5)), jnp.int32),
    "index": jnp.asarray(index, jnp.uint32),
  }


@pytest.fixture(scope="module")
def tiny():
  """Parameters, state, and the compiled loss of a batch."""
  params, state = jax.jit(OBJECTIVE.init)(jax.random.key(0), make_batch())
  return params, state, jax.jit(lambda p, s, b: OBJECTIVE.loss(p, s, b, rng=KEY, step=0))


def test_the_loss_is_clips_of_the_first_view_and_simclrs_of_the_others(tiny):
  params, state, loss = tiny
  batch = make_batch()
  out = loss(params, state, batch)

  def written_out(params):
    pair = {"image": batch["views"][:, 0], "text": batch["text"], "index": batch["index"]}
    clip = INNER.loss(params["model"], {}, pair, rng=KEY, step=0).loss
    encode = lambda v: VIT.apply({"params": params["model"]["image"]["encoder"]}, batch["views"][:, v])["embedding"]
    variables = {"params": params["projector"], "batch_stats": state["projector"]}
    both = jnp.concatenate([encode(1), encode(2)])
    z, changed = OBJECTIVE.projector.apply(variables, both, train=True, mutable=["batch_stats"])
    return clip, nt_xent(z[:BATCH], z[BATCH:], temperature=0.3), changed["batch_stats"]

  clip, simclr, statistics = jax.jit(written_out)(params)
  assert float(out.metrics["slip/image_text"]) == pytest.approx(float(clip), rel=1e-5)
  assert float(out.metrics["slip/nt_xent"]) == pytest.approx(float(simclr), rel=1e-4)
  assert float(out.loss) == pytest.approx(float(clip) + 0.5 * float(simclr), rel=1e-5)
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
  jax.tree.map(close, out.state["projector"], statistics)


def test_equal_views_are_partners(tiny):
  params, state, loss = tiny
  batch = make_batch()
  equal = batch | {"views": batch["views"].at[:, 2].set(batch["views"][:, 1])}
  assert float(loss(params, state, equal).metrics["slip/accuracy"]) == 1


def test_features_and_clamp_are_the_image_text_objectives(tiny):
  params, state, _ = tiny
  batch = {"image": make_batch()["views"][:, 0]}
  encode = lambda objective, *args: jax.jit(objective.encode)(*args, batch)
  found, expected = encode(OBJECTIVE, params, state), encode(INNER, params["model"], {})
  jax.tree.map(np.testing.assert_array_equal, found, expected)
  hot = {**params, "model": {**params["model"], "logit_scale": jnp.float32(9)}}
  assert float(OBJECTIVE.post_update(hot, state, step=0)[0]["model"]["logit_scale"]) == pytest.approx(np.log(100))
  assert OBJECTIVE.parts()["model"].params == "model" and OBJECTIVE.projector.last_bias == "present"


def test_the_recipe_gives_what_is_asked_for():
  batch = {"image": jnp.zeros((2, 20, 20, 3), jnp.uint8), "aspect": jnp.ones(2)}
  made = jax.eval_shape(Views(recipe="slip", size=SIZE), jax.random.split(KEY, 2), batch)
  assert made["views"].shape == (2, 3, SIZE, SIZE, 3)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(weight=-1.0), "slip.SLIP: weight -1.0, expected a finite number"),
    (dict(temperature=0.0), "slip.SLIP: temperature 0.0, expected more than 0"),
    (dict(projector_out=0), "slip.SLIP: projector_out 0, expected at least 1"),
    (dict(image_text=OBJECTIVE), "slip.SLIP: image_text SLIP, expected clip.CLIP"),
  ],
)
def test_bad_fields_are_named(options, message):
  with pytest.raises(UserError, match=message):
    dataclasses.replace(OBJECTIVE, **options)


def test_the_texts_ids_are_checked():
  OBJECTIVE.check_texts(size=20, end=19)
  with pytest.raises(
    UserError, match=r"objective\.image_text\.model\.text\.encoder\.vocab_size: found 20, expected at"
  ):
    OBJECTIVE.check_texts(size=21, end=20)


def test_two_views_are_too_few():
  with pytest.raises(UserError, match=r"slip\.SLIP: found 2 views of an image, expected 3"):
    OBJECTIVE.init(KEY, make_batch(views=2))


def test_built_from_a_config_section():
  tower = lambda encoder: dict(name="dual.Tower", encoder=encoder, width=6)
  image, text = dict(name="vit.ViT", variant="Ti"), dict(name="text_tower.TextTower", vocab_size=20)
  model = dict(name="dual.DualEncoder", image=tower(image), text=tower(text), initial_bias=-10)
  section = dict(name="slip.SLIP", image_text=dict(name="clip.SigLIP", model=model, pairs="ring"))
  objective = build(section, "objectives", where="objective")
  assert objective.projector.hidden == 4096 and objective.image_text.pairs == "ring"
