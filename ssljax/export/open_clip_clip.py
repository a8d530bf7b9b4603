"""CLIP's two towers as `open_clip.CLIP`, whose towers are its own VisionTransformer and TextTransformer.

Paths of ours are those of a `dual.DualEncoder`'s parameters without "params/".
"""

import math
from collections.abc import Mapping
from typing import Any

from ssljax.errors import UserError
from ssljax.export.table import Line, under
from ssljax.export.tower_tables import dense, norm, patches, towers_differ, value
from ssljax.models.dual import DualEncoder
from ssljax.models.text_tower import TextTower
from ssljax.models.vit import ViT

EPSILON = 1e-5  # of its layer norms, where norm_kwargs does not say
IMAGE_FIELDS = {
  "positions": "learnt",
  "cls_token": "learnt",
  "patch_bias": "absent",
  "layer_scale": None,
  "channels": 3,
}
IMAGE_POOLING = {"cls": "tok", "mean": "avg"}
NATIVE = {
  "timm_model_name": None,
  "attentional_pool": False,
  "final_ln_after_pool": False,
  "pos_embed_type": "learnable",
}
NATIVE |= {"hf_model_name": None, "embed_cls": False, "proj_type": "linear", "proj_bias": False, "ls_init_value": None}


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


def blocks(theirs: str) -> list[Line]:
  """Returns the lines of a stack of its ResidualAttentionBlocks, whose q, k and v are one product."""
  layer = f"{theirs}.resblocks.{{l}}"
  return [
    Line("blocks/attn/qkv/kernel", f"{layer}.attn.in_proj_weight", "l i t o -> l (t o) i"),
    Line("blocks/attn/qkv/bias", f"{layer}.attn.in_proj_bias"),
    *dense("blocks/attn/proj", f"{layer}.attn.out_proj"),
    *dense("blocks/mlp/fc1", f"{layer}.mlp.c_fc"),
    *dense("blocks/mlp/fc2", f"{layer}.mlp.c_proj"),
    *norm("blocks/norm1", f"{layer}.ln_1"),
    *norm("blocks/norm2", f"{layer}.ln_2"),
  ]


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
  text = [
    Line("token_embedder/embedding", "token_embedding.weight"),
    Line("pos_embed", "positional_embedding"),
    *blocks("transformer"),
    *norm("norm", "ln_final"),
  ]
  return [
    *under(image, ours="image/encoder/", theirs="visual."),
    *under(text, ours="text/encoder/"),
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
  image, text = model.image.encoder, model.text.encoder
  vision_cfg = {
    "image_size": image.image_size,
    "patch_size": image.patch,
    "head_width": image.size.width // image.size.heads,
    "pool_type": IMAGE_POOLING[image.pooling],
    "no_ln_pre": image.pre_norm == "absent",
  }
  pooling = "last" if text.pooling == "last" else "argmax" if text.eos is None else "eos"
  text_cfg = {
    "context_length": text.length,
    "vocab_size": text.vocab_size,
    "heads": text.heads,
    "no_causal_mask": text.attention == "all",
    "pool_type": pooling,
    **({} if text.eos is None else {"eos_id": text.eos}),
  }
  return {
    "embed_dim": model.image.features,
    "quick_gelu": image.activation == "quick_gelu",
    "init_logit_scale": math.log(model.initial_scale),
    "init_logit_bias": model.initial_bias,
    "vision_cfg": vision_cfg | _sizes(image),
    "text_cfg": text_cfg | _sizes(text),
  }


def _sizes(encoder: ViT | TextTower) -> dict[str, Any]:
  width = value(encoder, "width")
  ratio = round(value(encoder, "mlp_ratio") * width) / width
  return {
    "width": width,
    "layers": value(encoder, "depth"),
    # The peer cuts the product with the width off, where we round it.
    "mlp_ratio": ratio if int(ratio * width) == round(ratio * width) else math.nextafter(ratio, math.inf),
    "norm_kwargs": {"eps": encoder.norm_epsilon},
    **({"act_kwargs": {"approximate": "tanh"}} if encoder.activation == "gelu_tanh" else {}),
  }


def fields(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the config section of our model from the keys of `config`.

  Raises:
    UserError: towers of other libraries (timm, Hugging Face), ResNets, other pooling.
  """
  vision, text = config["vision_cfg"], config["text_cfg"]
  for part, found in (("vision_cfg", vision), ("text_cfg", text)):
    for key, expected in NATIVE.items():
      if found.get(key, expected) != expected:
        raise UserError(f"config: {part}.{key} {found[key]}, expected {expected}")
  quick = bool(config.get("quick_gelu"))
  poolings = {theirs: ours for ours, theirs in IMAGE_POOLING.items()}
  pooling = _known("vision_cfg.pool_type", vision.get("pool_type", "tok"), poolings)
  image_fields = _encoder(vision, quick, width=768, heads=None) | IMAGE_FIELDS | {"pooling": pooling}
  image_fields |= {"image_size": vision.get("image_size", 224), "patch": vision.get("patch_size", 16)}
  image_fields["pre_norm"] = "absent" if vision.get("no_ln_pre") else "present"
  text_fields = _encoder(text, quick, width=512, heads=8) | {"vocab_size": text.get("vocab_size", 49408)}
  text_fields |= {
    "length": text.get("context_length", 77),
    "attention": "all" if text.get("no_causal_mask") else "causal",
  }
  ends = {"argmax": ("eos", None), "eos": ("eos", text.get("eos_id", 2)), "last": ("last", None)}
  text_fields["pooling"], text_fields["eos"] = _known("text_cfg.pool_type", text.get("pool_type", "argmax"), ends)
  tower = lambda name, values: {"name": "dual.Tower", "width": config["embed_dim"], "encoder": {"name": name} | values}
  return {
    "name": "dual.DualEncoder",
    "image": tower("vit.ViT", image_fields),
    "text": tower("text_tower.TextTower", text_fields),
    "initial_scale": math.exp(config.get("init_logit_scale", math.log(1 / 0.07))),
    "initial_bias": config.get("init_logit_bias"),
  }


def _encoder(config: Mapping[str, Any], quick: bool, *, width: int, heads: int | None) -> dict[str, Any]:
  """Returns the fields both encoders have; `width` and `heads` are the peer's defaults."""
  width = config.get("width", width)
  tanh = (config.get("act_kwargs") or {}).get("approximate") == "tanh"
  depth = config.get("layers", 12)
  if not isinstance(depth, int):
    raise UserError(f"config: layers {depth}, expected one number: this class' ResNets are not ours")
  return {
    "width": width,
    "depth": depth,
    "heads": width // config.get("head_width", 64) if heads is None else config.get("heads", heads),
    "mlp_ratio": int(width * config.get("mlp_ratio", 4.0)) / width,
    "norm_epsilon": (config.get("norm_kwargs") or {}).get("eps", EPSILON),
    "activation": "quick_gelu" if quick else "gelu_tanh" if tanh else "gelu",
  }


def _known(key: str, found: str, valid: Mapping[str, Any]) -> Any:
  if found not in valid:
    raise UserError(f"config: {key} {found}, expected {' or '.join(valid)}")
  return valid[found]
