"""The vision transformer under timm's names and under Hugging Face's."""

from collections.abc import Mapping, Sequence

import numpy as np

from ssljax.export.table import Line
from ssljax.models.positions import sincos_2d
from ssljax.models.vit import ViT

QKV = ("query", "key", "value")


def dense(ours: str, theirs: str, layout: str = "i o -> o i") -> list[Line]:
  """Returns the lines of a product with bias; `theirs` with "{l}" is one of stacked layers."""
  stack = "{l}" in theirs
  left, right = layout.split("->")
  kernel = f"l {left.strip()} -> l {right.strip()}" if stack else layout
  return [Line(f"{ours}/kernel", f"{theirs}.weight", kernel), Line(f"{ours}/bias", f"{theirs}.bias")]


def norm(ours: str, theirs: str) -> list[Line]:
  """Returns the lines of a normalisation with scale and bias."""
  return [Line(f"{ours}/scale", f"{theirs}.weight"), Line(f"{ours}/bias", f"{theirs}.bias")]


def patches(ours: str, theirs: str, patch: int) -> list[Line]:
  """Returns the lines of the patch embedding: a convolution there, a product of flattened patches here."""
  kernel = Line(f"{ours}/kernel", f"{theirs}.weight", "(h w c) o -> o c h w", {"h": patch, "w": patch})
  return [kernel, Line(f"{ours}/bias", f"{theirs}.bias")]


def timm_blocks(ours: str, theirs: str, layer_scale: float | None) -> list[Line]:
  """Returns the lines of a stack of blocks named as timm's, whose qkv is one product."""
  lines = [*norm(f"{ours}/norm1", f"{theirs}.{{l}}.norm1"), *norm(f"{ours}/norm2", f"{theirs}.{{l}}.norm2")]
  lines += dense(f"{ours}/attn/qkv", f"{theirs}.{{l}}.attn.qkv", "i t o -> (t o) i")
  for part in ("attn/proj", "mlp/fc1", "mlp/fc2"):
    lines += dense(f"{ours}/{part}", f"{theirs}.{{l}}.{part.replace('/', '.')}")
  if layer_scale is not None:
    lines += [Line(f"{ours}/ls{n}/gamma", f"{theirs}.{{l}}.ls{n}.gamma") for n in (1, 2)]
  return lines


def hf_blocks(ours: str, theirs: str) -> list[Line]:
  """Returns the lines of a stack of blocks in Hugging Face's ViT, whose q, k and v are products of their own."""
  labels: Mapping[str, Sequence[str]] = {"t": QKV}
  qkv, name = f"{ours}/attn/qkv", f"{theirs}.{{l}}.attention.attention.{{t}}"
  return [
    Line(f"{qkv}/kernel", f"{name}.weight", "l i t o -> l t o i", labels=labels),
    Line(f"{qkv}/bias", f"{name}.bias", "l (t o) -> l t o", {"t": 3}, labels),
    *dense(f"{ours}/attn/proj", f"{theirs}.{{l}}.attention.output.dense"),
    *dense(f"{ours}/mlp/fc1", f"{theirs}.{{l}}.intermediate.dense"),
    *dense(f"{ours}/mlp/fc2", f"{theirs}.{{l}}.output.dense"),
    *norm(f"{ours}/norm1", f"{theirs}.{{l}}.layernorm_before"),
    *norm(f"{ours}/norm2", f"{theirs}.{{l}}.layernorm_after"),
  ]


def tokens(vit: ViT, *, cls: str, positions: str) -> list[Line]:
  """Returns the lines of what is learnt about tokens: the cls token and a table of positions."""
  lines = [Line("cls_token", cls)] if vit.cls_token == "learnt" else []
  return lines + ([Line("pos_embed", positions)] if vit.positions == "learnt" else [])


def fixed_positions(vit: ViT) -> np.ndarray | None:
  """Returns the table f32[1,N,D] a peer keeps for sine-cosine positions, zeros for cls; None where it is learnt."""
  if vit.positions == "learnt":
    return None
  cls = np.zeros((int(vit.cls_token == "learnt"), vit.features), np.float32)
  return np.concatenate([cls, sincos_2d(vit.grid, vit.features)])[None]
