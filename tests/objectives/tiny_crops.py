"""Crops of few pixels, and the smallest encoder with batch statistics."""

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from ssljax.models.layers import BatchNorm

BATCH, SIZE = 4, 8


class Convolution(nn.Module):
  """A convolution, batch normalisation and ReLU; "tokens" are its places."""

  features: int = 6
  dtype: str = "float32"

  @nn.compact
  def __call__(self, images, *, keep=None, keys=None, train=False):
    x = nn.Conv(self.features, (3, 3), name="conv")(images)
    x = nn.relu(BatchNorm(use_running_average=not train, name="bn")(x))
    return {"embedding": jnp.mean(x, axis=(1, 2)), "tokens": x.reshape(len(x), -1, self.features)}


def make_batch(seed=0, count=BATCH, views=2, local=3, side=4, size=SIZE):
  draw = np.random.default_rng(seed).normal
  pictures = lambda number, side: jnp.asarray(draw(size=(count, number, side, side, 3)), jnp.float32)
  index = np.stack([np.zeros(count), np.arange(count)], axis=1)
  found = {"views": pictures(views, size), "local_views": pictures(local, side)}
  return found | {"index": jnp.asarray(index, jnp.uint32)}


def batch_norm(x, params):
  axes = tuple(range(x.ndim - 1))
  return (x - x.mean(axes)) / np.sqrt(x.var(axes) + 1e-5) * params["scale"] + params["bias"]


def slow_maps(params, views):
  """Maps f64[V,B,H,W,D] of `Convolution`, one view after the other, all normalised together."""
  images = np.concatenate([views[:, v] for v in range(views.shape[1])])
  convolution = nn.Conv(len(params["conv"]["bias"]), (3, 3))
  hidden = np.asarray(convolution.apply({"params": params["conv"]}, images), np.float64)
  return np.maximum(batch_norm(hidden, params["bn"]), 0).reshape(views.shape[1], len(views), *hidden.shape[1:])
