"""CLIP with open_clip's weights: the same features and loss; configs and weights there and back."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from torch_parity import close, load, randomised, weights

from ssljax.build import build
from ssljax.errors import UserError
from ssljax.export import open_clip_clip
from ssljax.objectives.clip import CLIP, SigLIP

VISION = dict(image_size=12, layers=2, width=16, head_width=8, patch_size=4, mlp_ratio=2.5)
TEXT = dict(context_length=9, vocab_size=30, width=12, heads=2, layers=2)
OPENAI = dict(embed_dim=10, quick_gelu=True, vision_cfg=VISION, text_cfg=TEXT)
# What the class has besides: no first norm, a mean of patches, texts seen from both sides, GELU, a bias.
OTHER = dict(
  embed_dim=10,
  init_logit_scale=float(np.log(10)),
  init_logit_bias=-10.0,
  vision_cfg=VISION | dict(no_ln_pre=True, pool_type="avg", act_kwargs=dict(approximate="tanh")),
  text_cfg=TEXT | dict(no_causal_mask=True, pool_type="last", norm_kwargs=dict(eps=1e-3)),
)
CONFIGS = pytest.mark.parametrize("given", [OPENAI, OTHER], ids=["openai", "other"])
DRAW = np.random.default_rng(0)
IMAGES = DRAW.normal(size=(4, 12, 12, 3)).astype("float32")
TEXTS = DRAW.integers(0, 30, (4, 9))


def model_of(given):
  return build(open_clip_clip.fields(given), "models", where="model")


@pytest.mark.torchvision
@CONFIGS
def test_features_and_loss_equal_those_of_open_clip(given):
  torch = pytest.importorskip("torch")
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    open_clip = pytest.importorskip(
      "open_clip", reason="open_clip is not installed (docs/export.md)", exc_type=ImportError
    )
    model = model_of(given)
    peer = randomised(torch, open_clip.model.CLIP(**open_clip_clip.config(model), output_dict=True))
  variables = load(model, open_clip_clip.lines(model), weights(peer), IMAGES[:1], TEXTS[:1])
  with torch.no_grad():
    expected = peer(torch.tensor(np.moveaxis(IMAGES, -1, 1)), torch.tensor(TEXTS))
    kind = open_clip.loss.ClipLoss if given is OPENAI else open_clip.loss.SigLipLoss
    expected_loss = kind()(**expected)
  objective = (CLIP if given is OPENAI else SigLIP)(model=model)
  batch = {"image": jnp.asarray(IMAGES), "text": jnp.asarray(TEXTS), "index": jnp.zeros((4, 2), jnp.uint32)}
  run = lambda p: (objective.encode(p, {}, batch), objective.loss(p, {}, batch, rng=jax.random.key(0), step=0).loss)
  encoded, loss = jax.jit(run)(variables["params"])
  differences = {
    "image features": close(encoded["image_features"], expected["image_features"], least=0.2),
    "text features": close(encoded["text_features"], expected["text_features"], least=0.2),
    "loss": close(loss, expected_loss, least=0.1),
  }
  print(", ".join(f"{name} differ by {size:.1e}" for name, size in differences.items()))


@CONFIGS
def test_the_config_there_and_back(given):
  model = model_of(given)
  again = open_clip_clip.config(model)
  assert open_clip_clip.misfit(model) is None and model_of(again).text == model.text
  assert model_of(again).image == model.image
  for part in ("vision_cfg", "text_cfg"):
    assert given[part].items() <= again[part].items()


def test_the_hidden_width_survives_the_peers_rounding():
  model = model_of(OPENAI | dict(vision_cfg=VISION | dict(width=1152, mlp_ratio=4304 / 1152, head_width=72)))
  ratio = open_clip_clip.config(model)["vision_cfg"]["mlp_ratio"]
  assert int(1152 * ratio) == 4304 == model.image.encoder.hidden


@pytest.mark.parametrize(
  ("part", "change", "message"),
  [
    ("vision_cfg", {"timm_model_name": "vit_b"}, "vision_cfg.timm_model_name vit_b, expected None"),
    ("vision_cfg", {"layers": [3, 4]}, r"layers \[3, 4\], expected one number"),
    ("text_cfg", {"pool_type": "first"}, "text_cfg.pool_type first, expected argmax or eos or last"),
  ],
)
def test_configs_of_other_towers_are_refused(part, change, message):
  with pytest.raises(UserError, match=message):
    open_clip_clip.fields(OPENAI | {part: OPENAI[part] | change})


@pytest.mark.parametrize(
  ("change", "reason"),
  [
    (lambda m: m.clone(image=m.image.clone(encoder=m.image.encoder.clone(pooling="map"))), "pooling is map"),
    (lambda m: m.clone(text=m.text.clone(encoder=m.text.encoder.clone(activation="gelu"))), "quick_gelu is in one"),
    (lambda m: m.clone(image=m.image.clone(encoder=m.image.encoder.clone(channels=1))), "channels is 1"),
  ],
)
def test_what_does_not_fit_is_named(change, reason):
  assert reason in open_clip_clip.misfit(change(model_of(OPENAI)))
