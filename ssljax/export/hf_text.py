"""Text models as Hugging Face's T5 and Llama."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from ssljax.data.vocabulary import Vocabulary
from ssljax.export import torch_side
from ssljax.export.gate import Ours
from ssljax.export.huggingface import HuggingFace
from ssljax.export.peer import Arrays, Modules
from ssljax.export.table import Line, under
from ssljax.models.prefix_lm import PrefixLM
from ssljax.models.t5 import T5

PROJECTIONS = {"query": "q", "key": "k", "value": "v", "out": "o"}
MLP = {"wi_0": "wi_0", "wi_1": "wi_1", "wo": "wo"}
LLAMA_MLP = {"wi_0": "gate_proj", "wi_1": "up_proj", "wo": "down_proj"}


def products(ours: str, theirs: str, names: dict[str, str]) -> list[Line]:
  """Returns the lines of a stack of products without bias; `theirs` has "{l}"."""
  return [Line(f"{ours}/{a}/kernel", f"{theirs}.{b}.weight", "l i o -> l o i") for a, b in names.items()]


def head(model: T5 | PrefixLM) -> list[Line]:
  """Returns the line of the logits' product, where it is not the embedding."""
  return [Line("logits_dense/kernel", "lm_head.weight", "i o -> o i")] if model.head == "untied" else []


class TextModel(HuggingFace):
  """A class that reads token ids.

  Attributes:
    start: what its config calls the id that stands before the first, which is that of padding.
    ends: whether its users expect the tokenizer to end a text with eos.
  """

  start: ClassVar[str]
  ends: ClassVar[bool]

  def ids(self, vocabulary: Vocabulary) -> dict[str, int]:
    """Returns the ids of special tokens by their names in config.json."""
    pad = vocabulary.tokenizer.pad
    return {"pad_token_id": pad, self.start: pad, "eos_token_id": vocabulary.eos}


class T5ForConditionalGeneration(TextModel):
  """`transformers.T5ForConditionalGeneration`, version 1.1."""

  name = "T5ForConditionalGeneration"
  start = "decoder_start_token_id"
  ends = True
  takes: ClassVar = {"model": T5}
  keys: ClassVar = {
    "vocab_size": "vocab_size", "d_model": "width", "d_kv": "head_width", "d_ff": "hidden", "num_layers": "depth",
    "num_heads": "heads", "tie_word_embeddings": "head",
  }  # fmt: skip

  def lines(self, modules: Modules) -> list[Line]:
    """Returns the table."""
    lines = [Line("token_embedder/embedding", "shared.weight"), *head(modules["model"])]
    encoder, decoder = ("attention",), ("self_attention", "encoder_decoder_attention")
    for stack, attentions in (("encoder", encoder), ("decoder", decoder)):
      lines += under(self._stack(attentions), ours=f"{stack}/", theirs=f"{stack}.")
      lines += [Line(f"{stack}/{stack}_norm/scale", f"{stack}.final_layer_norm.weight")]
    return under(lines, ours="model/params/")

  def _stack(self, attentions: tuple[str, ...]) -> list[Line]:
    bias = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"  # the first layer's serves all
    lines = [Line("relpos_bias/rel_embedding", bias, "h b -> b h")]
    for number, name in enumerate((*attentions, "mlp")):
      place = f"block.{{l}}.layer.{number}"
      norm = "cross_attention" if name == "encoder_decoder_attention" else name
      part = {"mlp": "DenseReluDense", "encoder_decoder_attention": "EncDecAttention"}.get(name, "SelfAttention")
      lines += products(f"blocks/{name}", f"{place}.{part}", MLP if name == "mlp" else PROJECTIONS)
      lines += [Line(f"blocks/pre_{norm}_layer_norm/scale", f"{place}.layer_norm.weight")]
    return lines

  def leave(self, name: str) -> bool:
    """Returns whether it is the shared embedding under another name."""
    return name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")

  def config(self, modules: Modules) -> dict[str, Any]:
    """Returns T5Config's sizes."""
    model = modules["model"]
    return {
      "model_type": "t5",
      "is_encoder_decoder": True,
      "vocab_size": model.vocab_size,
      "d_model": model.size.width,
      "d_kv": model.size.head_width,
      "d_ff": model.size.hidden,
      "num_layers": model.size.depth,
      "num_decoder_layers": model.size.depth,
      "num_heads": model.size.heads,
      "relative_attention_num_buckets": 32,
      "relative_attention_max_distance": 128,
      "feed_forward_proj": "gated-gelu",
      "layer_norm_epsilon": 1e-6,
      "dropout_rate": model.dropout,
      "tie_word_embeddings": model.head == "tied",
    }

  def read_config(self, folder: str) -> Mapping[str, Any] | None:
    """Returns config.json; that logits are not scaled is how transformers 5 says that the head is not tied."""
    found = super().read_config(folder)
    scaled = found and found.get("scale_decoder_outputs", found.get("tie_word_embeddings", True))
    return found and {**found, "tie_word_embeddings": scaled}

  def ours(self, ours: Ours, modules: Modules, inputs: Arrays) -> dict[str, np.ndarray]:
    """Returns the logits of the targets."""
    segments = {key: inputs[key] for key in ("input_segments", "target_segments")}
    logits = ours.apply("model", inputs["inputs"], inputs["targets_in"], **segments)
    return {"logits": _kept(logits, inputs["target_segments"])}

  def theirs(self, model: Any, inputs: Arrays) -> dict[str, np.ndarray]:
    """Returns the same of transformers."""
    given = {"input_ids": "inputs", "attention_mask": "input_segments", "decoder_input_ids": "targets_in"}
    with torch_side.no_gradients():
      logits = model(**{key: torch_side.tensor(inputs[name].astype(np.int64)) for key, name in given.items()}).logits
    return {"logits": _kept(torch_side.outputs(logits=logits)["logits"], inputs["target_segments"])}

  def usage(self, modules: Modules) -> str:
    """Returns how transformers loads it."""
    return (
      "from transformers import T5ForConditionalGeneration\n\n"
      'model = T5ForConditionalGeneration.from_pretrained("FOLDER").eval()'
    )


class LlamaForCausalLM(TextModel):
  """`transformers.LlamaForCausalLM`: the same layers; that a prefix is seen from both sides is its caller's mask."""

  name = "LlamaForCausalLM"
  start = "bos_token_id"
  ends = False
  takes: ClassVar = {"model": PrefixLM}
  keys: ClassVar = {
    "vocab_size": "vocab_size", "hidden_size": "width", "head_dim": "head_width", "intermediate_size": "hidden",
    "num_hidden_layers": "depth", "num_attention_heads": "heads", "tie_word_embeddings": "head",
  }  # fmt: skip

  def misfit(self, modules: Modules) -> str | None:
    """Returns why the model cannot be written as this class."""
    if reason := super().misfit(modules):
      return reason
    tied = modules["model"].head == "tied"
    return "model.head is tied, which divides logits by sqrt(width); Llama does not" if tied else None

  def lines(self, modules: Modules) -> list[Line]:
    """Returns the table."""
    attention = {name: f"self_attn.{short}_proj" for name, short in PROJECTIONS.items()}
    mlp = {name: f"mlp.{long}" for name, long in LLAMA_MLP.items()}
    lines = [
      Line("token_embedder/embedding", "model.embed_tokens.weight"),
      *products("blocks/attention", "model.layers.{l}", attention),
      *products("blocks/mlp", "model.layers.{l}", mlp),
      Line("blocks/pre_attention_layer_norm/scale", "model.layers.{l}.input_layernorm.weight"),
      Line("blocks/pre_mlp_layer_norm/scale", "model.layers.{l}.post_attention_layernorm.weight"),
      Line("norm/scale", "model.norm.weight"),
      *head(modules["model"]),
    ]
    return under(lines, ours="model/params/")

  def leave(self, name: str) -> bool:
    """Returns whether it is a table of angles, which older versions kept."""
    return name.endswith("rotary_emb.inv_freq")

  def config(self, modules: Modules) -> dict[str, Any]:
    """Returns LlamaConfig's sizes."""
    model = modules["model"]
    return {
      "model_type": "llama",
      "vocab_size": model.vocab_size,
      "hidden_size": model.size.width,
      "head_dim": model.size.head_width,
      "intermediate_size": model.size.hidden,
      "num_hidden_layers": model.size.depth,
      "num_attention_heads": model.size.heads,
      "num_key_value_heads": model.size.heads,
      "hidden_act": "silu",
      "rms_norm_eps": 1e-6,
      "rope_theta": 10_000.0,
      "attention_bias": False,
      "mlp_bias": False,
      "tie_word_embeddings": False,
      "max_position_embeddings": 2048,
    }

  def loading(self) -> dict[str, Any]:
    """Returns the attention that takes any mask."""
    return {"attn_implementation": "eager"}

  def ours(self, ours: Ours, modules: Modules, inputs: Arrays) -> dict[str, np.ndarray]:
    """Returns the logits, with the prefix seen from both sides and with none."""
    given = {"segments": inputs["target_segments"], "positions": inputs["target_positions"]}
    prefix = inputs["prefix_in"].astype(bool)
    run = lambda prefix: _kept(
      ours.apply("model", inputs["targets_in"], prefix=prefix, **given), inputs["target_segments"]
    )
    return {"logits": run(prefix), "causal logits": run(np.zeros_like(prefix))}

  def theirs(self, model: Any, inputs: Arrays) -> dict[str, np.ndarray]:
    """Returns the same of transformers."""
    tokens, length = torch_side.tensor(inputs["targets_in"].astype(np.int64)), inputs["targets_in"].shape[1]
    causal = np.tril(np.ones((length, length), bool))[None]
    real = (inputs["target_segments"] > 0)[:, None, :]
    out = {}
    for name, allowed in (("logits", causal | (inputs["prefix_in"][:, None] > 0)), ("causal logits", causal)):
      blocked = np.where(allowed & real, 0.0, np.finfo(np.float32).min).astype(np.float32)[:, None]
      with torch_side.no_gradients():
        logits = model(tokens, attention_mask=torch_side.tensor(blocked)).logits
      out[name] = _kept(torch_side.outputs(logits=logits)["logits"], inputs["target_segments"])
    return out

  def usage(self, modules: Modules) -> str:
    """Returns how transformers loads it."""
    return (
      'from transformers import LlamaForCausalLM\n\nmodel = LlamaForCausalLM.from_pretrained("FOLDER").eval()\n'
      "# The first token of a text is 0. A prefix is to be seen from both sides: pass a mask [B,1,L,L], 0 or -inf."
    )


def _kept(logits: np.ndarray, segments: np.ndarray) -> np.ndarray:
  """Returns the logits, zero where there is no token."""
  return logits * (segments > 0)[..., None]
