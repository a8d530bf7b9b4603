"""Attention pooling: one learnt query looks at all tokens, the head of SigLIP's image tower."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from ssljax import precision, sharding
from ssljax.models.layers import LAYER_NORM_EPSILON, MLP, Activation, Dense, LayerNorm
from ssljax.types import Array


class AttentionPool(nn.Module):
  """y = proj(attention(q(latent), kv(x))), then y + mlp(norm(y)); parameter names follow timm.

  The kernel of kv is f32[D,2,D] for the reason that qkv's in `layers.Attention` is f32[D,3,D].

  Attributes:
    heads, hidden, norm_epsilon, dtype, activation: those of `layers.Block`.

  Source: Zhai et al., Scaling Vision Transformers, 2021, arXiv 2106.04560 (the "MAP" head).
  """

  heads: int
  hidden: int
  norm_epsilon: float = LAYER_NORM_EPSILON
  dtype: precision.Dtype = "float32"
  activation: Activation = "gelu"

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Returns f32[B,D] for x[B,N,D]."""
    batch, _, width = x.shape
    latent = self.param("latent", nn.initializers.xavier_uniform(), (1, 1, width), jnp.float32)
    query = Dense(width, dtype=self.dtype, name="q")(latent).astype(self.dtype)
    kv = Dense((2, width), dtype=self.dtype, name="kv")(x).astype(self.dtype)
    heads = lambda part: sharding.split_heads(part.reshape(*part.shape[:-1], self.heads, width // self.heads))
    q, k, v = heads(jnp.broadcast_to(query, (batch, 1, width))), heads(kv[..., 0, :]), heads(kv[..., 1, :])
    mixed = sharding.split_last(jax.nn.dot_product_attention(q, k, v).astype(jnp.float32).reshape(batch, 1, width))
    y = Dense(width, dtype=self.dtype, name="proj")(mixed)
    mlp = MLP(self.hidden, dtype=self.dtype, activation=self.activation, name="mlp")
    return (y + mlp(LayerNorm(self.norm_epsilon, name="norm")(y)))[:, 0]
