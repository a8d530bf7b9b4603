"""Distillation losses: how far the features of one model are from those of another."""

import jax
import jax.numpy as jnp

from ssljax import sharding
from ssljax.losses.contrastive import l2_normalize
from ssljax.losses.pair_sums import products
from ssljax.types import Array

SELF = -1000.0  # the cosine a row is given with itself: it takes no part


def cosine_distance(a: Array, b: Array) -> Array:
  """Returns 1 - cos(a, b) f32[...] for features a, b [...,D]: 0 in the same direction, 1 at right angles, 2 opposed.

  It is computed as ||a/|a| - b/|b|||^2 / 2, the same number without the cancellation in 1 - cos: features of a model
  and of its recent copy are nearly parallel, and equal ones are at distance 0 exactly, with gradient 0. A zero vector
  has no direction: it is 1/2 from every other, with finite gradients.
  """
  return 0.5 * jnp.sum(jnp.square(l2_normalize(a) - l2_normalize(b)), axis=-1)


def topology_losses(
  image: Array, text: Array, image_before: Array, text_before: Array, *, temperature: float | Array
) -> tuple[Array, Array]:
  """Returns how far the relations within a batch went from those of a model before, two f32[], in nats.

  With P(x, y)_i = softmax_j(x_i . y_j / T) and KL the mean over the rows i of sum_j p_ij log(p_ij / q_ij), p of the
  model before and q of today's, the first is between images and texts, the second among images and among texts, where
  a row does not meet itself (the topology preservation of CTP):

      cross = 1/2 ( KL(P(image, text)) + KL(P(text, image)) )
      same  = 1/2 ( KL(P(image, image)) + KL(P(text, text)) )

  Args:
    image: f32[B,D], of unit length.
    text: f32[B,D], of unit length.
    image_before, text_before: f32[B,D'], those of the model before; no gradient goes to them.
    temperature: T.

  Source: Zhu, Wei, Liang, Zhang, Zhao, "CTP: Towards Vision-Language Continual Pretraining via Compatible Momentum
    Contrast and Topology Preservation", 2023, arXiv 2308.07146.
  """
  today, before = {"i": image, "t": text}, {"i": image_before, "t": text_before}
  kl = lambda x, y: _relation_kl(today[x], today[y], before[x], before[y], same=x == y, temperature=temperature)
  return 0.5 * (kl("i", "t") + kl("t", "i")), 0.5 * (kl("i", "i") + kl("t", "t"))


def _relation_kl(
  x: Array, y: Array, x_before: Array, y_before: Array, *, same: bool, temperature: float | Array
) -> Array:
  def logs(x: Array, y: Array) -> Array:
    cosines = sharding.constrain(products(x, y))
    cosines = jnp.where(jnp.eye(len(x), dtype=bool), SELF, cosines) if same else cosines
    return jax.nn.log_softmax(cosines / temperature, axis=-1)

  target = jax.lax.stop_gradient(logs(x_before, y_before))
  return jnp.mean(jnp.sum(jnp.exp(target) * (target - logs(x, y)), axis=-1))
