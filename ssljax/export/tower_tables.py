"""What the tables of image and text towers share: lines of a layer, sizes in both directions, what does not fit.

Paths of ours are those of a model's parameters without "params/": "image/encoder/blocks/attn/qkv/kernel".
"""

from collections.abc import Mapping
from typing import Any

from flax import linen as nn

from ssljax.errors import UserError, nearest
from ssljax.export.table import Line
from ssljax.models.dual import DualEncoder, Tower
from ssljax.models.vit import Size, ViT

Keys = Mapping[str, tuple[str, Any]]  # their key -> (our field, their default)
HF_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "quick_gelu": "quick_gelu"}


def dense(ours: str, theirs: str, layout: str = "i o -> o i") -> list[Line]:
  """Returns the lines of a product with bias; `theirs` with "{l}" is one of stacked layers."""
  left, right = layout.split("->")
  kernel = f"l {left.strip()} -> l {right.strip()}" if "{l}" in theirs else layout
  return [Line(f"{ours}/kernel", f"{theirs}.weight", kernel), Line(f"{ours}/bias", f"{theirs}.bias")]


def norm(ours: str, theirs: str) -> list[Line]:
  """Returns the lines of a normalisation with scale and bias."""
  return [Line(f"{ours}/scale", f"{theirs}.weight"), Line(f"{ours}/bias", f"{theirs}.bias")]


def patches(theirs: str, vit: ViT) -> list[Line]:
  """Returns the lines of the patch embedding: a convolution there, a product of flattened patches here."""
  sides, ours = {"h": vit.patch, "w": vit.patch}, "patch_embed/proj"
  kernel = Line(f"{ours}/kernel", f"{theirs}.weight", "(h w c) o -> o c h w", sides)
  return [kernel, *([Line(f"{ours}/bias", f"{theirs}.bias")] if vit.patch_bias == "present" else [])]


def apart(theirs: str, labels: tuple[str, str, str]) -> list[Line]:
  """Returns the lines of the blocks' q, k and v where they are products of their own; `theirs` has "{l}" and "{t}"."""
  qkv, named = "blocks/attn/qkv", {"t": labels}
  kernel = Line(f"{qkv}/kernel", f"{theirs}.weight", "l i t o -> l t o i", labels=named)
  return [kernel, Line(f"{qkv}/bias", f"{theirs}.bias", "l (t o) -> l t o", {"t": 3}, named)]


def hf_blocks(theirs: str) -> list[Line]:
  """Returns the lines of the blocks in transformers' CLIP and SigLIP, which name them alike."""
  layer = f"{theirs}.{{l}}"
  return [
    *apart(f"{layer}.self_attn.{{t}}_proj", ("q", "k", "v")),
    *dense("blocks/attn/proj", f"{layer}.self_attn.out_proj"),
    *dense("blocks/mlp/fc1", f"{layer}.mlp.fc1"),
    *dense("blocks/mlp/fc2", f"{layer}.mlp.fc2"),
    *norm("blocks/norm1", f"{layer}.layer_norm1"),
    *norm("blocks/norm2", f"{layer}.layer_norm2"),
  ]


def value(module: nn.Module, key: str) -> Any:
  """Returns a field of an encoder, a ViT's sizes with its variant's in place of None."""
  inside = isinstance(module, ViT) and key in Size._fields
  return getattr(module.size if inside else module, key)


def hf_config(module: nn.Module, keys: Keys) -> dict[str, Any]:
  """Returns an encoder's sizes under Hugging Face's keys."""
  sizes = {theirs: value(module, ours) for theirs, (ours, _) in keys.items()}
  hidden = round(value(module, "mlp_ratio") * value(module, "width"))
  return sizes | {"intermediate_size": hidden, "hidden_act": HF_ACTIVATIONS[module.activation]}


def hf_fields(config: Mapping[str, Any], keys: Keys, *, hidden: int, activation: str) -> dict[str, Any]:
  """Returns our fields from Hugging Face's keys; what a config leaves out has their default.

  Args:
    config: of one encoder.
    keys: theirs -> (ours, default).
    hidden: their default of intermediate_size.
    activation: their default of hidden_act.

  Raises:
    UserError: an activation that we do not have, or images or patches that are no squares.
  """
  found = {ours: _side(theirs, config.get(theirs, default)) for theirs, (ours, default) in keys.items()}
  name, ours = config.get("hidden_act", activation), {theirs: ours for ours, theirs in HF_ACTIVATIONS.items()}
  if name not in ours:
    raise UserError(f"config.json: hidden_act {nearest(str(name), ours)}")
  found["mlp_ratio"] = config.get("intermediate_size", hidden) / found["width"]
  return found | {"activation": ours[name]}


def _side(key: str, found: Any) -> Any:
  """Returns the side of a square that may be written as (side, side); anything else as it is."""
  if not isinstance(found, list | tuple):
    return found
  if len(set(found)) != 1:
    raise UserError(f"config.json: {key} {list(found)}, expected a square")
  return found[0]


def differs(module: nn.Module, place: str, wanted: Mapping[str, Any]) -> str | None:
  """Returns which of the fields is not as a peer's class has it; None where all are."""
  for key, expected in wanted.items():
    if getattr(module, key) != expected:
      return f"{place}.{key} is {getattr(module, key)}, this class has {expected}"
  return None


def towers_differ(model: nn.Module, kinds: Mapping[str, type], wanted: Mapping[str, Mapping[str, Any]]) -> str | None:
  """Returns what of a dual encoder a peer's class has no place for; None where there is nothing.

  Args:
    model: anything.
    kinds: class of the encoder, by tower.
    wanted: fields by place: "image", "image.encoder", ...
  """
  if not isinstance(model, DualEncoder):
    return f"model is a {type(model).__name__}"
  if model.initial_scale is None:
    return "model.initial_scale is None, this class learns a scale"
  places: dict[str, nn.Module] = {}
  for name, kind in kinds.items():
    tower: Tower = getattr(model, name)
    if not isinstance(tower.encoder, kind):
      return f"{name}.encoder is a {type(tower.encoder).__name__}"
    if getattr(tower.encoder, "registers", 0):
      return f"model.{name}.encoder.registers is {tower.encoder.registers}, this class has none"
    if tower.layers > 1:
      return f"model.{name}.layers is {tower.layers}, this class has one product behind a tower"
    places |= {name: tower, f"{name}.encoder": tower.encoder}
  reasons = (differs(places[place], f"model.{place}", fields) for place, fields in wanted.items())
  return next(filter(None, reasons), None)
