"""CLIP and SigLIP with open_clip's weights: the same features and loss; configs and weights there and back."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from torch_parity import close, load, randomised, weights

from ssljax.build import build
from ssljax.errors import UserError
from ssljax.export import open_clip_clip, open_clip_siglip
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
SIGLIP = dict(
  embed_dim=768,
  init_logit_bias=-10.0,
  vision_cfg=dict(timm_model_name="vit_base_patch32_siglip_256", timm_pool="map", timm_proj="none"),
  text_cfg=TEXT | dict(no_causal_mask=True, proj_bias=True, pool_type="last", norm_kwargs=dict(eps=1e-6)),
)
CONFIGS = pytest.mark.parametrize("given", [OPENAI, OTHER], ids=["openai", "other"])
DRAW = np.random.default_rng(0)
TEXTS = DRAW.integers(0, 30, (4, 9))


def model_of(given, family=open_clip_clip):
  return build(family.fields(given), "models", where="model")


def images(side):
  return DRAW.normal(size=(4, side, side, 3)).astype("float32")


def compare(family, model, kind, objective, pictures, *, scale):
  """Features and loss of a peer with random weights and of our model that holds them; prints what differs."""
  torch = pytest.importorskip("torch")
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    reason = "open_clip is not installed (docs/export.md)"
    open_clip = pytest.importorskip("open_clip", reason=reason, exc_type=ImportError)
    peer = getattr(open_clip.model, kind)(**family.config(model), output_dict=True)
  peer = randomised(torch, peer, scale=scale)
  variables = load(model, family.lines(model), weights(peer), pictures[:1], TEXTS[:1])
  with torch.no_grad():
    expected = peer(torch.tensor(np.moveaxis(pictures, -1, 1)), torch.tensor(TEXTS))
    criterion = open_clip.loss.ClipLoss() if objective is CLIP else open_clip.loss.SigLipLoss()
    expected_loss = criterion(**expected)
  method = objective(model=model)
  batch = {"image": jnp.asarray(pictures), "text": jnp.asarray(TEXTS), "index": jnp.zeros((4, 2), jnp.uint32)}
  run = lambda p: (method.encode(p, {}, batch), method.loss(p, {}, batch, rng=jax.random.key(0), step=0).loss)
  encoded, loss = jax.jit(run)(variables["params"])
  found = {key: close(encoded[key], expected[key], least=0.05) for key in ("image_features", "text_features")}
  found["loss"] = close(loss, expected_loss, least=0.1)
  print(f"{kind}, largest differences:", ", ".join(f"{name} {size:.1e}" for name, size in found.items()))


@pytest.mark.torchvision
@CONFIGS
def test_features_and_loss_equal_those_of_open_clip(given):
  model = model_of(given)
  compare(open_clip_clip, model, "CLIP", CLIP if given is OPENAI else SigLIP, images(12), scale=0.2)


@pytest.mark.torchvision
def test_siglip_equals_that_of_open_clip_and_timm():
  """A whole ViT-B/32: timm has no smaller one under a name of SigLIP's."""
  model = model_of(SIGLIP, open_clip_siglip)
  compare(open_clip_siglip, model, "CustomTextCLIP", SigLIP, images(256), scale=0.05)


def test_siglips_config_there_and_back():
  model = model_of(SIGLIP, open_clip_siglip)
  again = open_clip_siglip.config(model)
  assert open_clip_siglip.misfit(model) is None and model.image.encoder.activation == "gelu_tanh"
  assert again["vision_cfg"] == SIGLIP["vision_cfg"] | dict(image_size=256, timm_model_pretrained=False)
  assert model_of(again, open_clip_siglip) == model
  small = model.clone(image=model.image.clone(encoder=model.image.encoder.clone(depth=11)))
  assert "none of the sizes that timm has a name for" in open_clip_siglip.misfit(small)
  for part, change in (("vision_cfg", "timm_pool"), ("text_cfg", "proj_bias")):
    silent = {key: value for key, value in SIGLIP[part].items() if key != change}
    with pytest.raises(UserError, match=f"config: {part}.{change}"):
      open_clip_siglip.fields(SIGLIP | {part: silent})
  with pytest.raises(UserError, match=r"timm_model_name vit_base_patch16_siglip_22 .did you mean vit_base"):
    open_clip_siglip.fields(SIGLIP | dict(vision_cfg=dict(timm_model_name="vit_base_patch16_siglip_22")))


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
