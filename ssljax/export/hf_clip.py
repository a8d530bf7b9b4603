"""CLIP's two towers as `transformers.CLIPModel`.

Paths of ours are those of a `dual.DualEncoder`'s parameters without "params/".
"""

import math
from collections.abc import Mapping
from typing import Any

from ssljax.export.table import Line, under
from ssljax.export.tower_tables import Keys, dense, hf_blocks, hf_config, hf_fields, norm, patches, towers_differ
from ssljax.models.dual import DualEncoder
from ssljax.models.text_tower import TextTower
from ssljax.models.vit import ViT

IMAGE: Keys = {
  "hidden_size": ("width", 768),
  "num_hidden_layers": ("depth", 12),
  "num_attention_heads": ("heads", 12),
  "num_channels": ("channels", 3),
  "image_size": ("image_size", 224),
  "patch_size": ("patch", 32),
  "layer_norm_eps": ("norm_epsilon", 1e-5),
}
TEXT: Keys = {
  "vocab_size": ("vocab_size", 49408),
  "max_position_embeddings": ("length", 77),
  "hidden_size": ("width", 512),
  "num_hidden_layers": ("depth", 12),
  "num_attention_heads": ("heads", 8),
  "layer_norm_eps": ("norm_epsilon", 1e-5),
}
IMAGE_FIELDS = {"positions": "learnt", "cls_token": "learnt", "pooling": "cls", "pre_norm": "present"}
IMAGE_FIELDS |= {"patch_bias": "absent", "layer_scale": None}
TEXT_FIELDS = {"attention": "causal", "pooling": "eos"}
LARGEST = 2  # the id that says: the end of a text is its largest id (transformers' CLIPTextModel)


def misfit(model: Any) -> str | None:
  """Returns why a model cannot be written as this class; None where it can."""
  kinds = {"image": ViT, "text": TextTower}
  plain = {"bias": "absent"}
  wanted = {"image": plain, "text": plain, "image.encoder": IMAGE_FIELDS, "text.encoder": TEXT_FIELDS}
  if reason := towers_differ(model, kinds, wanted):
    return reason
  if None in (model.image.width, model.text.width):
    return "a tower has no projection (width is None), this class has two"
  if model.initial_bias is not None:
    return "model.initial_bias is a number, this class has no bias"
  return "text.encoder.eos is 2, which means the largest id there" if model.text.encoder.eos == LARGEST else None


def lines(model: DualEncoder) -> list[Line]:
  """Returns the table."""
  image = [
    Line("cls_token", "embeddings.class_embedding", "1 1 d -> d"),
    Line("pos_embed", "embeddings.position_embedding.weight", "1 n d -> n d"),
    *patches("embeddings.patch_embedding", model.image.encoder),
    *norm("norm_pre", "pre_layrnorm"),  # spelt so
    *hf_blocks("encoder.layers"),
    *norm("norm", "post_layernorm"),
  ]
  text = [
    Line("token_embedder/embedding", "embeddings.token_embedding.weight"),
    Line("pos_embed", "embeddings.position_embedding.weight"),
    *hf_blocks("encoder.layers"),
    *norm("norm", "final_layer_norm"),
  ]
  return [
    *under(image, ours="image/encoder/", theirs="vision_model."),
    *under(text, ours="text/encoder/", theirs="text_model."),
    dense("image/projection", "visual_projection")[0],
    dense("text/projection", "text_projection")[0],
    Line("logit_scale", "logit_scale"),
  ]


def leave(name: str) -> bool:
  """Returns whether it is a list of numbers that older versions kept."""
  return name.endswith("embeddings.position_ids")


def config(model: DualEncoder) -> dict[str, Any]:
  """Returns the arguments of CLIPConfig."""
  text, projection = model.text.encoder, {"projection_dim": model.image.features}
  end = {"eos_token_id": LARGEST if text.eos is None else text.eos, "bos_token_id": None, "pad_token_id": None}
  return {
    "model_type": "clip",
    "vision_config": hf_config(model.image.encoder, IMAGE) | projection,
    "text_config": hf_config(text, TEXT) | end | projection,
    "logit_scale_init_value": math.log(model.initial_scale),
    **projection,
  }


def fields(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the config section of our model from CLIPConfig's keys.

  Raises:
    UserError: an activation that we do not have, or images that are no squares.
  """
  vision, text = config.get("vision_config") or {}, config.get("text_config") or {}
  eos, width = text.get("eos_token_id", 49407), config.get("projection_dim", 512)
  image_fields = hf_fields(vision, IMAGE, hidden=3072, activation="quick_gelu") | IMAGE_FIELDS
  text_fields = hf_fields(text, TEXT, hidden=2048, activation="quick_gelu") | TEXT_FIELDS
  text_fields["eos"] = None if eos == LARGEST else eos
  return {
    "name": "dual.DualEncoder",
    "image": {"name": "dual.Tower", "width": width, "encoder": {"name": "vit.ViT"} | image_fields},
    "text": {"name": "dual.Tower", "width": width, "encoder": {"name": "text_tower.TextTower"} | text_fields},
    "initial_scale": math.exp(config.get("logit_scale_init_value", 2.6592)),
  }
