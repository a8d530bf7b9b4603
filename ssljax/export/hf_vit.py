"""A vision transformer as Hugging Face's ViT, and a masked autoencoder with its decoder as ViTMAE."""

import re
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from ssljax.export import torch_side, vit_tables
from ssljax.export.gate import Ours
from ssljax.export.huggingface import HuggingFace
from ssljax.export.peer import Arrays, Modules
from ssljax.export.table import Line, under
from ssljax.export.tower_tables import HF_ACTIVATIONS, dense, norm, patches
from ssljax.models.mae_decoder import MAEDecoder
from ssljax.models.positions import sincos_2d
from ssljax.models.vit import ViT

KEYS = {
  "hidden_size": "width", "num_hidden_layers": "depth", "num_attention_heads": "heads", "image_size": "image_size",
  "patch_size": "patch", "num_channels": "channels", "intermediate_size": "mlp_ratio",
  "layer_norm_eps": "norm_epsilon", "hidden_act": "activation",
}  # fmt: skip
POSITIONS = "embeddings.position_embeddings"


def encoder_lines(vit: ViT) -> list[Line]:
  """Returns the lines of the encoder, without what stands before the names."""
  lines = vit_tables.tokens(vit, cls="embeddings.cls_token", positions=POSITIONS)
  lines += patches("embeddings.patch_embeddings.projection", vit)
  return [*lines, *vit_tables.hf_blocks("encoder.layer"), *norm("norm", "layernorm")]


def encoder_config(vit: ViT) -> dict[str, Any]:
  """Returns the encoder's sizes as ViTConfig and ViTMAEConfig have them."""
  return {
    "hidden_size": vit.size.width,
    "num_hidden_layers": vit.size.depth,
    "num_attention_heads": vit.size.heads,
    "intermediate_size": round(vit.size.mlp_ratio * vit.size.width),
    "image_size": vit.image_size,
    "patch_size": vit.patch,
    "num_channels": vit.channels,
    "qkv_bias": True,
    "hidden_act": HF_ACTIVATIONS[vit.activation],
    "layer_norm_eps": vit.norm_epsilon,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
  }


def misfit(vit: ViT) -> str | None:
  """Returns what of a ViT these classes have no place for."""
  return vit_tables.misfit(vit, {"cls_token": "learnt", "layer_scale": None})


class ViTModel(HuggingFace):
  """`transformers.ViTModel` of an encoder, without a pooler."""

  name = "ViTModel"
  takes: ClassVar = {"encoder": ViT}
  keys: ClassVar = KEYS

  def misfit(self, modules: Modules) -> str | None:
    """Returns why the encoder cannot be written as this class."""
    return super().misfit(modules) or misfit(modules["encoder"])

  def lines(self, modules: Modules) -> list[Line]:
    """Returns the table."""
    return under(encoder_lines(modules["encoder"]), ours="encoder/params/")

  def constants(self, modules: Modules) -> dict[str, np.ndarray]:
    """Returns the fixed positions."""
    table = vit_tables.fixed_positions(modules["encoder"])
    return {} if table is None else {POSITIONS: table}

  def leave(self, name: str) -> bool:
    """Returns whether it is a pooler, a classifier or a decoder."""
    return name.startswith(("pooler.", "classifier.", "decoder.", "embeddings.mask_token"))

  def renamed(self, arrays: Arrays) -> dict[str, np.ndarray]:
    """Returns the arrays without the prefix that models with a head have."""
    return {name.removeprefix("vit."): array for name, array in arrays.items()}

  def config(self, modules: Modules) -> dict[str, Any]:
    """Returns ViTConfig's sizes."""
    return {"model_type": "vit", **encoder_config(modules["encoder"])}

  def loading(self) -> dict[str, Any]:
    """Returns that there is no pooler."""
    return {"add_pooling_layer": False}

  def ours(self, ours: Ours, modules: Modules, inputs: Arrays) -> dict[str, np.ndarray]:
    """Returns cls and patch tokens."""
    out = ours.apply("encoder", inputs["image"])
    return {"cls": out["cls"], "tokens": out["tokens"]}

  def theirs(self, model: Any, inputs: Arrays) -> dict[str, np.ndarray]:
    """Returns the same of transformers."""
    with torch_side.no_gradients():
      hidden = model(torch_side.images(inputs)).last_hidden_state
    return torch_side.outputs(cls=hidden[:, 0], tokens=hidden[:, 1:])

  def usage(self, modules: Modules) -> str:
    """Returns how transformers loads it."""
    pooled = "[:, 0]" if modules["encoder"].pooling == "cls" else "[:, 1:].mean(1)"
    return (
      "from transformers import ViTModel\n\n"
      'model = ViTModel.from_pretrained("FOLDER", add_pooling_layer=False).eval()\n'
      f"embedding = model(pixel_values).last_hidden_state{pooled}"
    )


class ViTMAEForPreTraining(HuggingFace):
  """`transformers.ViTMAEForPreTraining` of an encoder and its decoder."""

  name = "ViTMAEForPreTraining"
  takes: ClassVar = {"encoder": ViT, "decoder": MAEDecoder}
  keys: ClassVar = KEYS

  def misfit(self, modules: Modules) -> str | None:
    """Returns why the two cannot be written as this class."""
    return super().misfit(modules) or misfit(modules["encoder"])

  def lines(self, modules: Modules) -> list[Line]:
    """Returns the table."""
    decoder = [
      Line("mask_token", "mask_token"),
      *dense("embed", "decoder_embed"),
      *vit_tables.hf_blocks("decoder_layers"),
      *norm("norm", "decoder_norm"),
      *dense("pred", "decoder_pred"),
    ]
    encoder = under(encoder_lines(modules["encoder"]), ours="encoder/params/", theirs="vit.")
    return encoder + under(decoder, ours="decoder/params/", theirs="decoder.")

  def constants(self, modules: Modules) -> dict[str, np.ndarray]:
    """Returns the fixed positions, of the decoder always."""
    vit, width = modules["encoder"], modules["decoder"].width
    table = vit_tables.fixed_positions(vit)
    patches = np.concatenate([np.zeros((1, width), np.float32), sincos_2d(vit.grid, width)])[None]
    return {"decoder.decoder_pos_embed": patches} | ({} if table is None else {f"vit.{POSITIONS}": table})

  def renamed(self, arrays: Arrays) -> dict[str, np.ndarray]:
    """Returns the arrays as released: transformers 5 writes decoder_encoder.layer for decoder_layers."""
    return {re.sub(r"\bdecoder_encoder\.layer\b", "decoder_layers", name): array for name, array in arrays.items()}

  def config(self, modules: Modules) -> dict[str, Any]:
    """Returns ViTMAEConfig's sizes."""
    decoder = modules["decoder"]
    return {
      "model_type": "vit_mae",
      **encoder_config(modules["encoder"]),
      "decoder_hidden_size": decoder.width,
      "decoder_num_hidden_layers": decoder.depth,
      "decoder_num_attention_heads": decoder.heads,
      "decoder_intermediate_size": round(decoder.mlp_ratio * decoder.width),
      "mask_ratio": 0.75,
    }

  def ours(self, ours: Ours, modules: Modules, inputs: Arrays) -> dict[str, np.ndarray]:
    """Returns the visible tokens, and the predicted pixels of all patches."""
    keep, order = self._masking(modules, inputs)
    encoded = ours.apply("encoder", inputs["image"], keep=keep)
    predicted = ours.apply("decoder", encoded["tokens"], order, cls=encoded["cls"])
    return {"visible tokens": encoded["tokens"], "predicted pixels": predicted}

  def theirs(self, model: Any, inputs: Arrays) -> dict[str, np.ndarray]:
    """Returns the same of transformers, given the same noise."""
    count = (model.config.image_size // model.config.patch_size) ** 2
    noise = torch_side.tensor(_noise(len(inputs["image"]), count))
    with torch_side.no_gradients():
      pictures = torch_side.images(inputs)
      visible = model.vit(pictures, noise=noise).last_hidden_state[:, 1:]
      predicted = model(pictures, noise=noise).logits
    return torch_side.outputs(**{"visible tokens": visible, "predicted pixels": predicted})

  def _masking(self, modules: Modules, inputs: Arrays) -> tuple[Any, Any]:
    count = modules["encoder"].grid[0] * modules["encoder"].grid[1]
    order = np.argsort(_noise(len(inputs["image"]), count), axis=1, kind="stable")
    return jnp.asarray(order[:, : int(count * 0.25)]), jnp.asarray(np.argsort(order, axis=1))

  def usage(self, modules: Modules) -> str:
    """Returns how transformers loads it."""
    return (
      'from transformers import ViTMAEForPreTraining\n\nmodel = ViTMAEForPreTraining.from_pretrained("FOLDER").eval()'
    )


def _noise(batch: int, count: int) -> np.ndarray:
  """Returns what decides which patches stay visible, f32[B,N] without ties."""
  rows = np.random.default_rng(0).permuted(np.tile(np.arange(count), (batch, 1)), axis=1)
  return (rows / count).astype(np.float32)
