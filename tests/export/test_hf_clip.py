"""CLIP with transformers' weights: the same features, tokens and loss; configs and weights there and back."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from torch_parity import close, load, randomised, weights

from ssljax.build import build
from ssljax.errors import UserError
from ssljax.export import hf_clip, table
from ssljax.models.text_tower import TextTower
from ssljax.objectives.clip import CLIP

SIZES = dict(num_hidden_layers=2, num_attention_heads=2)
CONFIG = dict(
  vision_config=dict(hidden_size=16, intermediate_size=40, image_size=12, patch_size=4, **SIZES),
  text_config=dict(
    vocab_size=30, hidden_size=12, intermediate_size=28, max_position_embeddings=9, eos_token_id=29, **SIZES
  ),
  projection_dim=10,
)
DRAW = np.random.default_rng(0)
IMAGES = DRAW.normal(size=(4, 12, 12, 3)).astype("float32")
TEXTS = DRAW.integers(3, 28, (4, 9))
TEXTS[np.arange(4), [8, 3, 5, 5]] = 29
TEXTS[2, 6:] = 29  # padded with the end, as CLIP's tokenizer does
MODEL = build(hf_clip.fields(CONFIG), "models", where="model")


@pytest.fixture(scope="module")
def peer():
  torch = pytest.importorskip("torch")
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from transformers import CLIPConfig, CLIPModel

    return randomised(torch, CLIPModel(CLIPConfig(**hf_clip.config(MODEL))))


@pytest.fixture(scope="module")
def variables(peer):
  return load(MODEL, hf_clip.lines(MODEL), weights(peer), IMAGES[:1], TEXTS[:1], leave=hf_clip.leave)


def test_features_tokens_and_loss_equal_those_of_transformers(peer, variables):
  import torch

  with torch.no_grad():
    pixels, ids = torch.tensor(np.moveaxis(IMAGES, -1, 1)), torch.tensor(TEXTS)
    expected = peer(input_ids=ids, pixel_values=pixels, return_loss=True)
    tokens = peer.vision_model.post_layernorm(expected.vision_model_output.last_hidden_state)
  objective = CLIP(model=MODEL)
  batch = {"image": jnp.asarray(IMAGES), "text": jnp.asarray(TEXTS), "index": jnp.zeros((4, 2), jnp.uint32)}
  run = lambda p: (
    MODEL.apply({"params": p}, batch["image"], batch["text"]),
    objective.encode(p, {}, batch),
    objective.loss(p, {}, batch, rng=jax.random.key(0), step=0).loss,
  )
  out, encoded, loss = jax.jit(run)(variables["params"])
  close(jnp.concatenate([out["image"]["cls"][:, None], out["image"]["tokens"]], axis=1), tokens, least=0.5)
  close(out["text"]["tokens"], expected.text_model_output.last_hidden_state, least=0.5)
  close(encoded["image_features"], expected.image_embeds, least=0.2)
  close(encoded["text_features"], expected.text_embeds, least=0.2)
  close(loss, expected.loss, least=0.1)


def test_the_config_there_and_back():
  given = hf_clip.config(MODEL)
  again, first = hf_clip.fields(given), hf_clip.fields(CONFIG)
  assert again.pop("initial_scale") == pytest.approx(first.pop("initial_scale")) and again == first
  for part in ("vision_config", "text_config"):
    assert CONFIG[part].items() <= given[part].items()
  assert build(hf_clip.fields(given), "models", where="model").text == MODEL.text
  assert hf_clip.misfit(MODEL) is None


def test_what_a_config_leaves_out_is_the_published_vit_b_32():
  model = build(hf_clip.fields({}), "models", where="model")
  image, text = model.image.encoder, model.text.encoder
  assert (image.size.width, image.patch, image.activation, text.length) == (768, 32, "quick_gelu", 77)
  assert model.initial_scale == pytest.approx(1 / 0.07, rel=1e-4) and text.eos == 49407
  assert hf_clip.fields({"text_config": {"eos_token_id": 2}})["text"]["encoder"]["eos"] is None
  with pytest.raises(UserError, match=r"hidden_act gelu_pytorch_tan .did you mean gelu_pytorch_tanh"):
    hf_clip.fields({"vision_config": {"hidden_act": "gelu_pytorch_tan"}})


@pytest.mark.parametrize(
  ("change", "reason"),
  [
    (lambda m: m.image.encoder, "model is a ViT"),
    (lambda m: m.clone(image=m.image.clone(encoder=m.text.encoder)), "image.encoder is a TextTower"),
    (lambda m: m.clone(image=m.image.clone(encoder=m.image.encoder.clone(pre_norm="absent"))), "pre_norm is absent"),
    (lambda m: m.clone(text=m.text.clone(bias="present")), "model.text.bias is present"),
    (lambda m: m.clone(text=m.text.clone(encoder=m.text.encoder.clone(eos=2))), "eos is 2"),
    (lambda m: m.clone(initial_bias=-10.0), "has no bias"),
    (lambda m: m.clone(initial_scale=None), "this class learns a scale"),
    (lambda m: m.clone(image=m.image.clone(layers=2)), "model.image.layers is 2, this class has one product"),
  ],
)
def test_what_does_not_fit_is_named(change, reason):
  assert reason in hf_clip.misfit(change(MODEL))


def test_a_width_that_differs_is_named(peer):
  other = MODEL.clone(text=MODEL.text.clone(encoder=TextTower(vocab_size=30, length=9, width=8, depth=2, heads=2)))
  shapes = {"token_embedder/embedding": (30, 8)}
  line = next(line for line in hf_clip.lines(other) if line.ours == "text/encoder/token_embedder/embedding")
  theirs = {line.theirs: weights(peer)[line.theirs]}
  with pytest.raises(UserError, match=r"text_model.embeddings.token_embedding.weight: found shape \[30, 12\]"):
    table.to_ours([line], theirs, {line.ours: shapes["token_embedder/embedding"]})
