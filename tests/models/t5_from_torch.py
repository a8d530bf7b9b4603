"""Hugging Face's T5 as our parameters: names and transposes, layers stacked."""

import numpy as np

ENCODER = {
  "attention/query": "layer.0.SelfAttention.q",
  "attention/key": "layer.0.SelfAttention.k",
  "attention/value": "layer.0.SelfAttention.v",
  "attention/out": "layer.0.SelfAttention.o",
  "pre_attention_layer_norm": "layer.0.layer_norm",
  "mlp/wi_0": "layer.1.DenseReluDense.wi_0",
  "mlp/wi_1": "layer.1.DenseReluDense.wi_1",
  "mlp/wo": "layer.1.DenseReluDense.wo",
  "pre_mlp_layer_norm": "layer.1.layer_norm",
}
DECODER = {
  "self_attention/query": "layer.0.SelfAttention.q",
  "self_attention/key": "layer.0.SelfAttention.k",
  "self_attention/value": "layer.0.SelfAttention.v",
  "self_attention/out": "layer.0.SelfAttention.o",
  "pre_self_attention_layer_norm": "layer.0.layer_norm",
  "encoder_decoder_attention/query": "layer.1.EncDecAttention.q",
  "encoder_decoder_attention/key": "layer.1.EncDecAttention.k",
  "encoder_decoder_attention/value": "layer.1.EncDecAttention.v",
  "encoder_decoder_attention/out": "layer.1.EncDecAttention.o",
  "pre_cross_attention_layer_norm": "layer.1.layer_norm",
  "mlp/wi_0": "layer.2.DenseReluDense.wi_0",
  "mlp/wi_1": "layer.2.DenseReluDense.wi_1",
  "mlp/wo": "layer.2.DenseReluDense.wo",
  "pre_mlp_layer_norm": "layer.2.layer_norm",
}


def put(params, path, value):
  *parents, last = path.split("/")
  for name in parents:
    params = params.setdefault(name, {})
  params[last] = np.asarray(value)


def t5_params(weights, *, depth):
  """Parameters of `T5` from {name: array} of a gated T5ForConditionalGeneration with `depth` layers a stack."""
  params = {}
  put(params, "token_embedder/embedding", weights["shared.weight"])
  put(params, "logits_dense/kernel", weights["lm_head.weight"].T)
  for stack, names in (("encoder", ENCODER), ("decoder", DECODER)):
    put(params, f"{stack}/{stack}_norm/scale", weights[f"{stack}.final_layer_norm.weight"])
    table = weights[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
    put(params, f"{stack}/relpos_bias/rel_embedding", table.T)
    for ours, theirs in names.items():
      layers = np.stack([weights[f"{stack}.block.{layer}.{theirs}.weight"] for layer in range(depth)])
      norm = ours.endswith("norm")
      put(params, f"{stack}/blocks/{ours}/{'scale' if norm else 'kernel'}", layers if norm else layers.swapaxes(1, 2))
  return params
