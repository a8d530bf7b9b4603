"""CLIP's two towers as `open_clip.CLIP`, whose towers are its own VisionTransformer and TextTransformer.

Paths of ours are those of a `dual.DualEncoder`'s parameters without "params/".
"""

import math
from collections.abc import Mapping
from typing import Any

from ssljax.export.open_clip_towers import (
  NATIVE_TEXT,
  blocks,
  expect,
  known,
  logits,
  size_config,
  size_fields,
  text_config,
  text_fields,
  text_lines,
)
from ssljax.export.table import Line, under
from ssljax.export.tower_tables import norm, patches, towers_differ
from ssljax.models.dual import DualEncoder
from ssljax.models.text_tower import TextTower
from ssljax.models.vit import ViT

IMAGE_FIELDS = {
  "positions": "learnt",
  "cls_token": "learnt",
  "patch_bias": "absent",
  "layer_scale": None,
  "channels": 3,
}
IMAGE_POOLING = {"cls": "tok", "mean": "avg"}
# Defaults of what we have no other of.
NATIVE = {"timm_model_name": None, "attentional_pool": False, "final_ln_after_pool": False, "ls_init_value": None}
NATIVE |= {"pos_embed_type": "learnable"}


def misfit(model: Any) -> str | None:
  """Returns why a model cannot be written as this class; None where it can."""
  plain = {"bias": "absent"}
  wanted = {"image": plain, "text": plain, "image.encoder": IMAGE_FIELDS}
  if reason := towers_differ(model, {"image": ViT, "text": TextTower}, wanted):
    return reason
  image, text = model.image.encoder, model.text.encoder
  if None in (model.image.width, model.text.width):
    return "a tower has no projection (width is None), this class has two"
  if image.pooling not in IMAGE_POOLING:
    return f"model.image.encoder.pooling is {image.pooling}, this class has {' or '.join(IMAGE_POOLING)}"
  quick = {encoder.activation == "quick_gelu" for encoder in (image, text)}
  return "quick_gelu is in one tower, this class has it in both or none" if len(quick) > 1 else None


def lines(model: DualEncoder) -> list[Line]:
  """Returns the table."""
  vit = model.image.encoder
  image = [
    Line("cls_token", "class_embedding", "1 1 d -> d"),
    Line("pos_embed", "positional_embedding", "1 n d -> n d"),
    *patches("conv1", vit),
    *(norm("norm_pre", "ln_pre") if vit.pre_norm == "present" else []),
    *blocks("transformer"),
    *norm("norm", "ln_post"),
  ]
  return [
    *under(image, ours="image/encoder/", theirs="visual."),
    *text_lines(""),
    Line("image/projection/kernel", "visual.proj"),  # both as ours: rows are inputs
    Line("text/projection/kernel", "text_projection"),
    Line("logit_scale", "logit_scale"),
    *([] if model.initial_bias is None else [Line("logit_bias", "logit_bias")]),
  ]


def leave(name: str) -> bool:
  """Returns whether it is a number or a mask that OpenAI's archives keep beside the weights."""
  return name in ("attn_mask", "input_resolution", "context_length", "vocab_size")


def config(model: DualEncoder) -> dict[str, Any]:
  """Returns the arguments of `open_clip.CLIP`, "model_cfg" of its config files."""
  image = model.image.encoder
  vision_cfg = {
    "image_size": image.image_size,
    "patch_size": image.patch,
    "head_width": image.size.width // image.size.heads,
    "pool_type": IMAGE_POOLING[image.pooling],
    "no_ln_pre": image.pre_norm == "absent",
  }
  return {
    "embed_dim": model.image.features,
    "quick_gelu": image.activation == "quick_gelu",
    "init_logit_scale": math.log(model.initial_scale),
    "init_logit_bias": model.initial_bias,
    "vision_cfg": vision_cfg | size_config(image),
    "text_cfg": text_config(model.text.encoder),
  }


def fields(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the config section of our model from the keys of `config`.

  Raises:
    UserError: towers of other libraries (timm, Hugging Face), ResNets, other pooling.
  """
  vision, text = config["vision_cfg"], config["text_cfg"]
  expect("vision_cfg", vision, NATIVE)
  expect("text_cfg", text, NATIVE_TEXT | {"proj_bias": False})
  quick = bool(config.get("quick_gelu"))
  poolings = {theirs: ours for ours, theirs in IMAGE_POOLING.items()}
  pooling = known("vision_cfg.pool_type", vision.get("pool_type", "tok"), poolings)
  image_fields = size_fields(vision, quick, width=768, heads=None) | IMAGE_FIELDS | {"pooling": pooling}
  image_fields |= {"image_size": vision.get("image_size", 224), "patch": vision.get("patch_size", 16)}
  image_fields["pre_norm"] = "absent" if vision.get("no_ln_pre") else "present"
  tower = lambda encoder: {"name": "dual.Tower", "width": config["embed_dim"], "encoder": encoder}
  image = {"name": "vit.ViT"} | image_fields
  return {"name": "dual.DualEncoder", "image": tower(image), "text": tower(text_fields(text, quick)), **logits(config)}
