"""Two towers: what they give, what the parameters are called, what does not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax import tree
from ssljax.errors import UserError
from ssljax.models.dual import DualEncoder, Tower
from ssljax.models.text_tower import TextTower
from ssljax.models.vit import ViT

VIT = ViT(width=8, depth=1, heads=2, patch=4, image_size=8)
TEXT = TextTower(vocab_size=20, length=5, width=12, depth=1, heads=2)
MODEL = DualEncoder(image=Tower(encoder=VIT, width=6), text=Tower(encoder=TEXT, width=6))
SIGLIP = DualEncoder(
  image=Tower(encoder=VIT, width=None), text=Tower(encoder=TEXT, width=8, bias="present"), initial_scale=10.0,
  initial_bias=-10.0,
)  # fmt: skip
IMAGES, TEXTS = jax.random.normal(jax.random.key(0), (3, 8, 8, 3)), jnp.arange(15).reshape(3, 5)


def outer_shapes(model):
  params = jax.eval_shape(model.init, jax.random.key(0), IMAGES, TEXTS)["params"]
  return {name: leaf.shape for name, leaf in tree.named_leaves(params) if "/encoder/" not in name}


def test_names_of_what_the_encoders_do_not_have():
  assert outer_shapes(MODEL) == {
    "image/projection/kernel": (8, 6), "text/projection/kernel": (12, 6), "logit_scale": ()
  }  # fmt: skip
  assert outer_shapes(SIGLIP) == {
    "text/projection/kernel": (12, 8), "text/projection/bias": (8,), "logit_scale": (), "logit_bias": ()
  }  # fmt: skip


def test_starts_as_published():
  params = jax.jit(SIGLIP.init)(jax.random.key(0), IMAGES, TEXTS)["params"]
  assert float(params["logit_scale"]) == pytest.approx(np.log(10)) and float(params["logit_bias"]) == -10
  wide = Tower(encoder=TEXT.clone(width=400), width=300)
  kernel = jax.jit(wide.init)(jax.random.key(0), TEXTS)["params"]["projection"]["kernel"]
  np.testing.assert_allclose(kernel.std(), 400**-0.5, rtol=0.02)


def test_a_projection_of_two_layers_and_no_scale():
  deep = [Tower(encoder=encoder, width=6, layers=2) for encoder in (VIT, TEXT)]
  assert outer_shapes(DualEncoder(*deep, initial_scale=None)) == {
    f"{tower}/projection/{layer}/{leaf}": shape
    for tower, width in (("image", 8), ("text", 12))
    for layer, out in (("fc1", width), ("fc2", 6))
    for leaf, shape in (("kernel", (width, out)), ("bias", (out,)))
  }
  variables = jax.jit(deep[1].init)(jax.random.key(0), TEXTS)
  out = jax.jit(deep[1].apply)(variables, TEXTS)
  head = variables["params"]["projection"]
  hidden = np.maximum(out["embedding"] @ head["fc1"]["kernel"] + head["fc1"]["bias"], 0)
  np.testing.assert_allclose(out["projection"], hidden @ head["fc2"]["kernel"], rtol=1e-4, atol=1e-5)
  for options, message in (({"layers": 0}, "expected 1 or more"), ({"layers": 2, "width": None}, "expected 1 where")):
    with pytest.raises(UserError, match=f"dual.Tower: layers {options['layers']}, {message}"):
      Tower(encoder=VIT, **options)


def test_projects_what_the_encoders_embed(random_variables):
  variables = random_variables(MODEL, IMAGES, TEXTS)
  params = variables["params"]
  out = jax.jit(MODEL.apply)(variables, IMAGES, TEXTS)
  for key, encoder, x in (("image", VIT, IMAGES), ("text", TEXT, TEXTS)):
    embedding = jax.jit(encoder.apply)({"params": params[key]["encoder"]}, x)["embedding"]
    np.testing.assert_allclose(out[key]["embedding"], embedding, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(out[key]["projection"], embedding @ params[key]["projection"]["kernel"], rtol=1e-4)
  assert float(out["scale"]) == pytest.approx(np.exp(params["logit_scale"])) and float(out["bias"]) == 0
  alone = jax.jit(lambda v, x: MODEL.apply(v, None, x))(variables, TEXTS)
  assert "image" not in alone
  np.testing.assert_allclose(alone["text"]["projection"], out["text"]["projection"], rtol=1e-5, atol=1e-6)


def test_the_towers_drop_branches_independently(random_variables):
  both = ViT(width=8, depth=2, heads=2, patch=4, image_size=8, drop_path=0.5)
  model = DualEncoder(image=Tower(encoder=both, width=6), text=Tower(encoder=both, width=6))  # twice the same tower
  params = random_variables(model, IMAGES, IMAGES)["params"]
  same = {**params, "text": params["image"]}
  keys = jax.random.split(jax.random.key(1), 3)
  out = jax.jit(lambda p, k: model.apply({"params": p}, IMAGES, IMAGES, keys=k))(same, keys)
  assert np.abs(out["image"]["projection"] - out["text"]["projection"]).max() > 1e-3


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"image": VIT}, "image ViT, expected dual.Tower"),
    ({"text": Tower(encoder=TEXT, width=7)}, "projected to 6 numbers and texts to 7"),
    ({"initial_scale": 0.0}, "initial_scale 0.0, expected more than 0"),
  ],
)
def test_mistakes_fail_at_construction(options, message):
  fields = {"image": MODEL.image, "text": MODEL.text}
  with pytest.raises(UserError, match=message):
    DualEncoder(**fields | options)
  with pytest.raises(UserError, match="width 0, expected 1 or more"):
    Tower(encoder=VIT, width=0)
