"""The vision transformer under timm's names and under Hugging Face's."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ssljax.export.table import Line
from ssljax.export.tower_tables import apart, dense, differs, norm
from ssljax.models.positions import sincos_2d
from ssljax.models.vit import ViT


def misfit(vit: ViT, wanted: Mapping[str, Any]) -> str | None:
  """Returns which field of an encoder is not as wanted, or is what only CLIP's and SigLIP's towers have."""
  if vit.pooling == "map":
    return "encoder.pooling is map, this class has cls or mean"
  plain = {"pre_norm": "absent", "patch_bias": "present", "registers": 0, "mask_token": "absent"}
  return differs(vit, "encoder", plain | dict(wanted))


def timm_blocks(theirs: str, layer_scale: float | None) -> list[Line]:
  """Returns the lines of the blocks named as timm's, whose qkv is one product."""
  layer, products = f"{theirs}.{{l}}", ("attn/proj", "mlp/fc1", "mlp/fc2")
  lines = [line for n in (1, 2) for line in norm(f"blocks/norm{n}", f"{layer}.norm{n}")]
  lines += dense("blocks/attn/qkv", f"{layer}.attn.qkv", "i t o -> (t o) i")
  lines += [line for part in products for line in dense(f"blocks/{part}", f"{layer}.{part.replace('/', '.')}")]
  scales = () if layer_scale is None else (1, 2)
  return lines + [Line(f"blocks/ls{n}/gamma", f"{layer}.ls{n}.gamma") for n in scales]


def hf_blocks(theirs: str) -> list[Line]:
  """Returns the lines of the blocks in Hugging Face's ViT, whose q, k and v are products of their own."""
  layer = f"{theirs}.{{l}}"
  return [
    *apart(f"{layer}.attention.attention.{{t}}", ("query", "key", "value")),
    *dense("blocks/attn/proj", f"{layer}.attention.output.dense"),
    *dense("blocks/mlp/fc1", f"{layer}.intermediate.dense"),
    *dense("blocks/mlp/fc2", f"{layer}.output.dense"),
    *norm("blocks/norm1", f"{layer}.layernorm_before"),
    *norm("blocks/norm2", f"{layer}.layernorm_after"),
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
