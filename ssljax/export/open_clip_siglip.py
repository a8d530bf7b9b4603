"""SigLIP's two towers as `open_clip.CustomTextCLIP`, whose image tower is one of timm's by name.

Paths of ours are those of a `dual.DualEncoder`'s parameters without "params/".
"""

import math
from collections.abc import Mapping
from typing import Any

from ssljax.errors import UserError, nearest
from ssljax.export import hf_siglip
from ssljax.export.open_clip_towers import NATIVE_TEXT, expect, logits, text_config, text_fields, text_lines
from ssljax.export.table import Line, under
from ssljax.export.tower_tables import dense, norm, patches
from ssljax.export.vit_tables import timm_blocks
from ssljax.models.dual import DualEncoder
from ssljax.models.vit import ViT

SIZES = {  # width, depth, heads, hidden width of the MLP
  "base": (768, 12, 12, 3072),
  "large": (1024, 24, 16, 4096),
  "so400m": (1152, 27, 16, 4304),
  "giantopt": (1536, 40, 16, 6144),
}
RELEASED = (  # size, patch, image sizes, activation: timm has these under a name, and no others
  ("base", 16, (224, 256, 384, 512), "gelu"),
  ("base", 32, (256,), "gelu_tanh"),
  ("large", 16, (256, 384), "gelu"),
  ("large", 16, (512,), "gelu_tanh"),
  ("so400m", 14, (224, 378), "gelu"),
  ("so400m", 16, (256, 384, 512), "gelu_tanh"),
  ("giantopt", 16, (256, 384), "gelu_tanh"),
)
TRUNKS = {
  f"vit_{size}_patch{patch}_siglip_{side}": (*SIZES[size], patch, side, activation)
  for size, patch, sides, activation in RELEASED
  for side in sides
}


def misfit(model: Any) -> str | None:
  """Returns why a model cannot be written as this class; None where it can."""
  if reason := hf_siglip.misfit(model):
    return reason
  image, text = model.image.encoder, model.text.encoder
  if trunk(image) is None:
    return "image.encoder has none of the sizes that timm has a name for (ViT-B-16-SigLIP and its kin)"
  if image.channels != 3 or image.norm_epsilon != 1e-6:
    return "image.encoder has other channels or another norm_epsilon than 3 and 1e-06"
  return "text.encoder.activation is quick_gelu, this class has none" if text.activation == "quick_gelu" else None


def trunk(vit: ViT) -> str | None:
  """Returns timm's name of an image tower of this geometry; None where there is none."""
  geometry = (vit.size.width, vit.size.depth, vit.size.heads, vit.hidden, vit.patch, vit.image_size, vit.activation)
  return next((name for name, found in TRUNKS.items() if found == geometry), None)


def lines(model: DualEncoder) -> list[Line]:
  """Returns the table."""
  image = [
    Line("pos_embed", "pos_embed"),
    *patches("patch_embed.proj", model.image.encoder),
    *timm_blocks("blocks", None),
    *norm("norm", "norm"),
    *pool(),
  ]
  return [
    *under(image, ours="image/encoder/", theirs="visual.trunk."),
    *text_lines("text."),
    *dense("text/projection", "text.text_projection"),
    Line("logit_scale", "logit_scale"),
    Line("logit_bias", "logit_bias"),
  ]


def pool() -> list[Line]:
  """Returns the lines of timm's AttentionPoolLatent."""
  parts = [*dense("attn_pool/kv", "attn_pool.kv", "i t o -> (t o) i"), *norm("attn_pool/norm", "attn_pool.norm")]
  for part in ("q", "proj", "mlp/fc1", "mlp/fc2"):
    parts += dense(f"attn_pool/{part}", f"attn_pool.{part.replace('/', '.')}")
  return [Line("attn_pool/latent", "attn_pool.latent"), *parts]


def config(model: DualEncoder) -> dict[str, Any]:
  """Returns the arguments of `open_clip.CustomTextCLIP`; "custom_text": true stands beside them in a config file."""
  image = model.image.encoder
  return {
    "embed_dim": model.image.features,
    "init_logit_scale": math.log(model.initial_scale),
    "init_logit_bias": model.initial_bias,
    "vision_cfg": {
      "image_size": image.image_size,
      "timm_model_name": trunk(image),
      "timm_model_pretrained": False,
      "timm_pool": "map",
      "timm_proj": "none",
    },
    "text_cfg": text_config(model.text.encoder) | {"proj_bias": True},
  }


def fields(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the config section of our model from the keys of `config`.

  Raises:
    UserError: another image tower than SigLIP's, or a text tower of another library.
  """
  vision, text = config["vision_cfg"], config["text_cfg"]
  name = vision.get("timm_model_name")
  if name not in TRUNKS:
    raise UserError(f"config: vision_cfg.timm_model_name {nearest(str(name), TRUNKS)}")
  expect("vision_cfg", {"timm_pool": "avg", "timm_proj": "linear"} | vision, {"timm_pool": "map", "timm_proj": "none"})
  expect("text_cfg", {"proj_bias": False} | text, NATIVE_TEXT | {"proj_bias": True})
  width, depth, heads, hidden, patch, side, activation = TRUNKS[name]
  sizes = {"width": width, "depth": depth, "heads": heads, "mlp_ratio": hidden / width}
  image = {"name": "vit.ViT", "patch": patch, "image_size": side, "activation": activation, "norm_epsilon": 1e-6}
  image |= sizes | hf_siglip.IMAGE_FIELDS
  projected = {"width": config["embed_dim"], "bias": "present", "encoder": text_fields(text, False)}
  return {
    "name": "dual.DualEncoder",
    "image": {"name": "dual.Tower", "width": None, "encoder": image},
    "text": {"name": "dual.Tower"} | projected,
    **logits(config),
  }
