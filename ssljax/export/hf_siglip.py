"""SigLIP's two towers as `transformers.SiglipModel`.

Paths of ours are those of a `dual.DualEncoder`'s parameters without "params/".
"""

from collections.abc import Mapping
from typing import Any

from ssljax.errors import UserError
from ssljax.export.table import Line, under
from ssljax.export.tower_tables import (
  Keys,
  dense,
  hf_blocks,
  hf_config,
  hf_fields,
  norm,
  patches,
  towers_differ,
)
from ssljax.models.dual import DualEncoder
from ssljax.models.text_tower import TextTower
from ssljax.models.vit import ViT

IMAGE: Keys = {
  "hidden_size": ("width", 768),
  "num_hidden_layers": ("depth", 12),
  "num_attention_heads": ("heads", 12),
  "num_channels": ("channels", 3),
  "image_size": ("image_size", 224),
  "patch_size": ("patch", 16),
  "layer_norm_eps": ("norm_epsilon", 1e-6),
}
TEXT: Keys = {
  "vocab_size": ("vocab_size", 32000),
  "max_position_embeddings": ("length", 64),
  "hidden_size": ("width", 768),
  "num_hidden_layers": ("depth", 12),
  "num_attention_heads": ("heads", 12),
  "layer_norm_eps": ("norm_epsilon", 1e-6),
}
IMAGE_FIELDS = {"positions": "learnt", "cls_token": "none", "pooling": "map", "pre_norm": "absent"}
IMAGE_FIELDS |= {"patch_bias": "present", "layer_scale": None}
TEXT_FIELDS = {"attention": "all", "pooling": "last"}
INITIAL = {"initial_scale": 10.0, "initial_bias": -10.0}  # the paper's; transformers' config does not say


def misfit(model: Any) -> str | None:
  """Returns why a model cannot be written as this class; None where it can."""
  wanted = {"image": {"width": None}, "text": {"bias": "present"}}
  wanted |= {"image.encoder": IMAGE_FIELDS, "text.encoder": TEXT_FIELDS}
  if reason := towers_differ(model, {"image": ViT, "text": TextTower}, wanted):
    return reason
  if model.text.width is None:
    return "model.text.width is None, this class has a product behind the text tower"
  return "model.initial_bias is None, this class has a bias" if model.initial_bias is None else None


def pool() -> list[Line]:
  """Returns the lines of the attention pooling, whose q, k and v are rows of one array there."""
  attention = "head.attention"
  return [
    Line("attn_pool/latent", "head.probe"),
    Line("attn_pool/q/kernel", f"{attention}.in_proj_weight", "i o -> o i"),
    Line("attn_pool/kv/kernel", f"{attention}.in_proj_weight", "i t o -> (t o) i"),
    Line("attn_pool/q/bias", f"{attention}.in_proj_bias"),
    Line("attn_pool/kv/bias", f"{attention}.in_proj_bias"),
    *dense("attn_pool/proj", f"{attention}.out_proj"),
    *norm("attn_pool/norm", "head.layernorm"),
    *dense("attn_pool/mlp/fc1", "head.mlp.fc1"),
    *dense("attn_pool/mlp/fc2", "head.mlp.fc2"),
  ]


def lines(model: DualEncoder) -> list[Line]:
  """Returns the table."""
  image = [
    Line("pos_embed", "embeddings.position_embedding.weight", "1 n d -> n d"),
    *patches("embeddings.patch_embedding", model.image.encoder),
    *hf_blocks("encoder.layers"),
    *norm("norm", "post_layernorm"),
    *pool(),
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
    *dense("text/projection", "text_model.head"),
    Line("logit_scale", "logit_scale", "-> 1"),
    Line("logit_bias", "logit_bias", "-> 1"),
  ]


def leave(name: str) -> bool:
  """Returns whether it is a list of numbers that older versions kept."""
  return name.endswith("embeddings.position_ids")


def config(model: DualEncoder) -> dict[str, Any]:
  """Returns the arguments of SiglipConfig."""
  text = hf_config(model.text.encoder, TEXT) | {"projection_size": model.text.width}
  return {
    "model_type": "siglip",
    "vision_config": hf_config(model.image.encoder, IMAGE) | {"vision_use_head": True},
    "text_config": text | {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None},
  }


def fields(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the config section of our model from SiglipConfig's keys.

  Raises:
    UserError: a tower without its pooling, an activation that we do not have, or images that are no squares.
  """
  vision, text = config.get("vision_config") or {}, config.get("text_config") or {}
  if not vision.get("vision_use_head", True):
    raise UserError(
      "config.json: vision_config.vision_use_head false, expected true: the pooling is the image's vector"
    )
  image_fields = hf_fields(vision, IMAGE, hidden=3072, activation="gelu_pytorch_tanh") | IMAGE_FIELDS
  text_fields = hf_fields(text, TEXT, hidden=3072, activation="gelu_pytorch_tanh") | TEXT_FIELDS
  width = text.get("projection_size") or text_fields["width"]
  texts = {"width": width, "bias": "present", "encoder": {"name": "text_tower.TextTower"} | text_fields}
  return {
    "name": "dual.DualEncoder",
    "image": {"name": "dual.Tower", "width": None, "encoder": {"name": "vit.ViT"} | image_fields},
    "text": {"name": "dual.Tower"} | texts,
    **INITIAL,
  }
