"""What both classes of open_clip have: its TextTransformer, its blocks, and how its configs say sizes.

Paths of ours are those of a `dual.DualEncoder`'s parameters without "params/".
"""

import math
from collections.abc import Mapping
from typing import Any

from ssljax.errors import UserError
from ssljax.export.table import Line, under
from ssljax.export.tower_tables import dense, norm, value
from ssljax.models.text_tower import TextTower
from ssljax.models.vit import ViT

EPSILON = 1e-5  # of its layer norms, where norm_kwargs does not say
# Defaults of what we have no other of.
NATIVE_TEXT = {"hf_model_name": None, "embed_cls": False, "proj_type": "linear", "ls_init_value": None}


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


def text_lines(theirs: str) -> list[Line]:
  """Returns the lines of the text tower's encoder; `theirs` stands before its names."""
  text = [
    Line("token_embedder/embedding", "token_embedding.weight"),
    Line("pos_embed", "positional_embedding"),
    *blocks("transformer"),
    *norm("norm", "ln_final"),
  ]
  return under(text, ours="text/encoder/", theirs=theirs)


def text_config(text: TextTower) -> dict[str, Any]:
  """Returns "text_cfg" without what it says about the projection."""
  pooling = "last" if text.pooling == "last" else "argmax" if text.eos is None else "eos"
  own = {
    "context_length": text.length,
    "vocab_size": text.vocab_size,
    "heads": text.heads,
    "no_causal_mask": text.attention == "all",
    "pool_type": pooling,
    **({} if text.eos is None else {"eos_id": text.eos}),
  }
  return own | size_config(text)


def text_fields(config: Mapping[str, Any], quick: bool) -> dict[str, Any]:
  """Returns the section of the text tower's encoder from "text_cfg".

  Raises:
    UserError: a pooling that we do not have.
  """
  found = size_fields(config, quick, width=512, heads=8) | {"vocab_size": config.get("vocab_size", 49408)}
  found |= {"length": config.get("context_length", 77)}
  found |= {"attention": "all" if config.get("no_causal_mask") else "causal"}
  ends = {"argmax": ("eos", None), "eos": ("eos", config.get("eos_id", 2)), "last": ("last", None)}
  found["pooling"], found["eos"] = known("text_cfg.pool_type", config.get("pool_type", "argmax"), ends)
  return {"name": "text_tower.TextTower"} | found


def logits(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the fields of what makes logits of cosines."""
  scale = math.exp(config.get("init_logit_scale", math.log(1 / 0.07)))
  return {"initial_scale": scale, "initial_bias": config.get("init_logit_bias")}


def expect(part: str, config: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
  """Checks that a part of a config has these values or is silent (they are the peer's defaults).

  Raises:
    UserError: it has others.
  """
  for key, native in expected.items():
    if config.get(key, native) != native:
      raise UserError(f"config: {part}.{key} {config[key]}, expected {native}")


def size_config(encoder: ViT | TextTower) -> dict[str, Any]:
  """Returns the keys that both parts of a config have."""
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


def size_fields(config: Mapping[str, Any], quick: bool, *, width: int, heads: int | None) -> dict[str, Any]:
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


def known(key: str, found: str, valid: Mapping[str, Any]) -> Any:
  """Returns what a config's value stands for.

  Raises:
    UserError: it is none of the valid ones.
  """
  if found not in valid:
    raise UserError(f"config: {key} {found}, expected {' or '.join(valid)}")
  return valid[found]
