"""SigLIP with transformers' weights: the same features, tokens and loss; configs and weights there and back."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from torch_parity import close, load, randomised, weights

from ssljax.build import build
from ssljax.errors import UserError
from ssljax.export import hf_siglip
from ssljax.objectives.clip import SigLIP

SIZES = dict(num_hidden_layers=2, num_attention_heads=2)
CONFIG = dict(
  vision_config=dict(hidden_size=16, intermediate_size=40, image_size=12, patch_size=[4, 4], **SIZES),
  text_config=dict(
    vocab_size=30, hidden_size=12, intermediate_size=28, max_position_embeddings=9, projection_size=16, **SIZES
  ),
)
DRAW = np.random.default_rng(0)
IMAGES = DRAW.normal(size=(4, 12, 12, 3)).astype("float32")
TEXTS = DRAW.integers(1, 30, (4, 9))
MODEL = build(hf_siglip.fields(CONFIG), "models", where="model")


@pytest.fixture(scope="module")
def peer():
  torch = pytest.importorskip("torch")
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from transformers import SiglipConfig, SiglipModel

    return randomised(torch, SiglipModel(SiglipConfig(**hf_siglip.config(MODEL))))


@pytest.fixture(scope="module")
def variables(peer):
  return load(MODEL, hf_siglip.lines(MODEL), weights(peer), IMAGES[:1], TEXTS[:1], leave=hf_siglip.leave)


def test_features_tokens_and_loss_equal_those_of_transformers(peer, variables):
  import torch

  with torch.no_grad():
    pixels, ids = torch.tensor(np.moveaxis(IMAGES, -1, 1)), torch.tensor(TEXTS)
    expected = peer(input_ids=ids, pixel_values=pixels, return_loss=True)
  objective = SigLIP(model=MODEL)
  batch = {"image": jnp.asarray(IMAGES), "text": jnp.asarray(TEXTS), "index": jnp.zeros((4, 2), jnp.uint32)}
  run = lambda p: (
    MODEL.apply({"params": p}, batch["image"], batch["text"]),
    objective.encode(p, {}, batch),
    objective.loss(p, {}, batch, rng=jax.random.key(0), step=0).loss,
  )
  out, encoded, loss = jax.jit(run)(variables["params"])
  close(out["image"]["tokens"], expected.vision_model_output.last_hidden_state, least=0.5)
  close(out["text"]["tokens"], expected.text_model_output.last_hidden_state, least=0.5)
  close(encoded["image_features"], expected.image_embeds, least=0.2)
  close(encoded["text_features"], expected.text_embeds, least=0.2)
  close(loss, expected.loss, least=0.1)


def test_the_config_there_and_back():
  given = hf_siglip.config(MODEL)
  assert hf_siglip.fields(given) == hf_siglip.fields(CONFIG)
  assert CONFIG["text_config"].items() <= given["text_config"].items()
  assert given["vision_config"]["patch_size"] == 4
  assert hf_siglip.misfit(MODEL) is None and MODEL.initial_bias == -10


def test_what_a_config_leaves_out_is_the_published_b_16():
  model = build(hf_siglip.fields({}), "models", where="model")
  image, text = model.image.encoder, model.text.encoder
  assert (image.size.width, image.patch, image.activation, text.length) == (768, 16, "gelu_tanh", 64)
  assert model.text.width == 768
  with pytest.raises(UserError, match="vision_use_head false, expected true"):
    hf_siglip.fields({"vision_config": {"vision_use_head": False}})
  with pytest.raises(UserError, match=r"image_size \[224, 196\], expected a square"):
    hf_siglip.fields({"vision_config": {"image_size": [224, 196]}})


@pytest.mark.parametrize(
  ("change", "reason"),
  [
    (lambda m: m.clone(text=m.text.clone(bias="absent")), "model.text.bias is absent"),
    (lambda m: m.clone(text=m.text.clone(encoder=m.text.encoder.clone(pooling="eos"))), "pooling is eos"),
    (lambda m: m.clone(image=m.image.clone(encoder=m.image.encoder.clone(positions="sincos"))), "positions is sincos"),
    (lambda m: m.clone(initial_bias=None), "this class has a bias"),
  ],
)
def test_what_does_not_fit_is_named(change, reason):
  assert reason in hf_siglip.misfit(change(MODEL))
