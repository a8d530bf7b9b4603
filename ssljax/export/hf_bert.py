"""BERT's encoder as `transformers.BertModel`.

Paths of ours are those of a `bert.Bert`'s parameters without "params/".
"""

from collections.abc import Mapping
from typing import Any

from ssljax.errors import UserError
from ssljax.export.table import Line
from ssljax.export.tower_tables import Keys, apart, dense, hf_config, hf_fields, norm
from ssljax.models.bert import Bert

KEYS: Keys = {
  "vocab_size": ("vocab_size", 30522),
  "max_position_embeddings": ("length", 512),
  "hidden_size": ("width", 768),
  "num_hidden_layers": ("depth", 12),
  "num_attention_heads": ("heads", 12),
  "type_vocab_size": ("types", 2),
  "pad_token_id": ("padding", 0),
  "layer_norm_eps": ("norm_epsilon", 1e-12),
}
EXPECTED = {"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False}


def misfit(model: Any) -> str | None:
  """Returns why a model cannot be written as this class; None where it can."""
  return None if isinstance(model, Bert) else f"model is a {type(model).__name__}"


def lines(model: Bert) -> list[Line]:
  """Returns the table; the peer's pooler has no place in it."""
  del model
  layer = "encoder.layer.{l}"
  return [
    Line("token_embedder/embedding", "embeddings.word_embeddings.weight"),
    Line("pos_embed", "embeddings.position_embeddings.weight"),
    Line("type_embed", "embeddings.token_type_embeddings.weight"),
    *norm("norm_pre", "embeddings.LayerNorm"),
    *apart(f"{layer}.attention.self.{{t}}", ("query", "key", "value")),
    *dense("blocks/attn/proj", f"{layer}.attention.output.dense"),
    *norm("blocks/norm1", f"{layer}.attention.output.LayerNorm"),
    *dense("blocks/mlp/fc1", f"{layer}.intermediate.dense"),
    *dense("blocks/mlp/fc2", f"{layer}.output.dense"),
    *norm("blocks/norm2", f"{layer}.output.LayerNorm"),
  ]


def leave(name: str) -> bool:
  """Returns whether it is the pooler, a head, or a list of numbers that older versions kept."""
  return name.startswith(("pooler.", "cls.")) or name in ("embeddings.position_ids", "embeddings.token_type_ids")


def config(model: Bert) -> dict[str, Any]:
  """Returns the arguments of BertConfig."""
  return {"model_type": "bert", **hf_config(model, KEYS)}


def fields(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the config section of our model from BertConfig's keys; its pooling is not in them.

  Raises:
    UserError: relative positions, a decoder, or an activation that we do not have.
  """
  for key, expected in EXPECTED.items():
    if config.get(key, expected) != expected:
      raise UserError(f"config.json: {key} {config[key]}, expected {expected}")
  return {"name": "bert.Bert", **hf_fields(config, KEYS, hidden=3072, activation="gelu")}
