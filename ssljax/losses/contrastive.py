"""Contrastive losses: the positive of an anchor against all other embeddings of the batch, or against a queue.

Arrays are global. Each loss takes the keywords

    pairs   how the logits of all pairs are computed; the value and the gradients are the same
            "dense"   the whole matrix, cut by rows over the devices: the fastest where it fits
            "gather"  each device fetches the columns once and goes through them `chunk` at a time
            "ring"    the columns travel from device to device, and each holds those of one at a time
    chunk   most columns whose logits a device holds at once under "gather" and "ring"

Logits a device holds: batch^2 / devices floats under "dense", batch / devices * chunk under the others, forward and
backward. Both need a batch (and "ring" a queue) that divides over the devices. Without a mesh both are the same loop
over chunks. They have no forward-mode derivative.
"""

import jax
import jax.numpy as jnp

from ssljax import sharding
from ssljax.losses.pair_sums import logsumexps, others_logsumexp, products, row_logsumexp, row_softplus
from ssljax.losses.pairs import CHUNK, Pairs, Whole, choose
from ssljax.types import Array

EPSILON = 1e-12  # smallest squared length: a zero vector stays zero and its gradient finite


def l2_normalize(x: Array) -> Array:
  """Returns x / ||x|| along the last axis, in float32: x / sqrt(max(||x||^2, 1e-12))."""
  x = x.astype(jnp.float32)
  return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), EPSILON))


def nt_xent(a: Array, b: Array, *, temperature: float | Array, pairs: Pairs = "dense", chunk: int = CHUNK) -> Array:
  """Returns the normalised-temperature cross entropy f32[], the mean over the 2B anchors, in nats.

  With z the 2B rows of a and b, each divided by its length, and j(i) the other view of i (equation 1):

      loss = -1/(2B) sum_i log( exp(z_i . z_j(i) / T) / sum_{k != i} exp(z_i . z_k / T) )

  Args:
    a: f32[B,D], embeddings of the first views; lengths do not matter.
    b: f32[B,D], embeddings of the second views.
    temperature: T.
    pairs: how the pairs are computed, see the head of this file.
    chunk: most columns at once, of 2B.

  Raises:
    UserError: an unknown way, a chunk below 1, a batch that does not divide over the devices.

  Source: Chen, Kornblith, Norouzi, Hinton, "A Simple Framework for Contrastive Learning of Visual Representations",
    2020, arXiv 2002.05709.
  Differs from the reference: the authors' TensorFlow code adds the means over the two views and so returns twice
    this.
  """
  return nt_xent_and_accuracy(a, b, temperature=temperature, pairs=pairs, chunk=chunk)[0]


def nt_xent_and_accuracy(
  a: Array, b: Array, *, temperature: float | Array, pairs: Pairs = "dense", chunk: int = CHUNK
) -> tuple[Array, Array]:
  """Returns `nt_xent` f32[] and the share f32[] of the 2B anchors whose partner is found, from one pass over the pairs.

  A partner is found where its logit is above that of every row of another example: a collapsed network finds none.
  """
  positives = jnp.sum(l2_normalize(a) * l2_normalize(b), axis=-1) / temperature
  if pairs == "dense":
    logits = nt_xent_logits(a, b, temperature=temperature)
    loss = jnp.mean(jax.nn.logsumexp(logits, axis=-1)) - jnp.mean(positives)
    example = jnp.arange(len(logits)) // 2
    top = jnp.max(jnp.where(example[:, None] == example, -jnp.inf, logits), axis=-1)
    return loss, jnp.mean(_interleave(positives, positives) > top)
  way = choose(pairs, chunk=chunk, rows=len(a), columns=len(b))
  z = l2_normalize(_interleave(a, b)) * jax.lax.rsqrt(jnp.asarray(temperature, jnp.float32))
  others, top = others_logsumexp(way, z)
  positives = _interleave(positives, positives)
  # log(exp(p) + exp(others)) - p, without taking p from a number close to it
  return jnp.mean(jax.nn.softplus(others - positives)), jnp.mean(positives > top)


def nt_xent_logits(a: Array, b: Array, *, temperature: float | Array) -> Array:
  """Returns f32[2B,2B], cosine over temperature between all rows z = (a_0, b_0, a_1, b_1, ...).

  The positive of row i is column i^1; the diagonal, a row with itself, is minus infinity.
  """
  z = l2_normalize(_interleave(a, b))
  logits = sharding.constrain(products(z, z) / temperature)
  return jnp.where(jnp.eye(len(z), dtype=bool), -jnp.inf, logits)


def info_nce(
  query: Array, key: Array, queue: Array, *, temperature: float | Array, pairs: Pairs = "dense", chunk: int = CHUNK
) -> Array:
  """Returns the contrastive loss of queries against a queue, f32[], the mean over the B queries, in nats.

  With all rows divided by their lengths (equation 1):

      loss = -1/B sum_i log( exp(q_i . k_i / T) / (exp(q_i . k_i / T) + sum_n exp(q_i . queue_n / T)) )

  Args:
    query: f32[B,D].
    key: f32[B,D], the positive of each query.
    queue: f32[K,D], the negatives of all queries.
    temperature: T.
    pairs: how the pairs are computed, see the head of this file. Of a queue that every device holds whole, "gather"
      moves nothing.
    chunk: most rows of the queue at once.

  Raises:
    UserError: an unknown way, a chunk below 1, a batch (under "ring" also a queue) that does not divide over the
      devices.

  Source: He, Fan, Wu, Xie, Girshick, "Momentum Contrast for Unsupervised Visual Representation Learning", 2020,
    arXiv 1911.05722.
  """
  query, key, queue = l2_normalize(query), l2_normalize(key), l2_normalize(queue)
  positives = jnp.sum(query * key, axis=-1, keepdims=True)
  if pairs == "dense":
    negatives = sharding.constrain(products(query, queue))
    logits = jnp.concatenate([positives, negatives], axis=1) / temperature
    return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - logits[:, 0])
  way = choose(pairs, chunk=chunk, rows=len(query), columns=len(queue), gather=Whole)
  negatives = row_logsumexp(way, query / temperature, queue)
  return jnp.mean(jax.nn.softplus(negatives - positives[:, 0] / temperature))


def in_batch_nats(
  query: Array, key: Array, *, scale: float | Array, pairs: Pairs = "dense", chunk: int = CHUNK
) -> Array:
  """Returns how surprising each query's own key is among all keys of the batch, f32[B], in nats.

  With s_ij = scale q_i . k_j, whose vectors are taken as long as they are:

      nats_i = log sum_j exp(s_ij) - s_ii

  Args:
    query: f32[B,D].
    key: f32[M,D], M at least B; the one of query i is row i.
    scale: what the products are multiplied by.
    pairs: how the pairs are computed, see the head of this file.
    chunk: most keys at once.

  Raises:
    UserError: an unknown way, a chunk below 1, a batch that does not divide over the devices.

  Source: Lee, Chang, Toutanova, "Latent Retrieval for Weakly Supervised Open Domain Question Answering", 2019, arXiv
    1906.00300 (equation 6).
  """
  x, y = scale * query.astype(jnp.float32), key.astype(jnp.float32)
  if pairs == "dense":
    logs = jax.nn.logsumexp(sharding.constrain(products(x, y)), axis=1)
  else:
    logs = row_logsumexp(choose(pairs, chunk=chunk, rows=len(x), columns=len(y)), x, y)
  return logs - jnp.sum(x * y[: len(x)], axis=-1)


def softmax_loss(
  image: Array,
  text: Array,
  *,
  scale: float | Array,
  image_weight: float = 0.5,
  pairs: Pairs = "dense",
  chunk: int = CHUNK,
) -> Array:
  """Returns the cross entropy of image-text pairs in both directions f32[], the mean over B pairs, in nats.

  With x the images and y the texts, each divided by its length, s_ij = scale x_i . y_j and w = image_weight (figure 3
  of CLIP, whose w is 1/2; equations 3 to 5 of ConVIRT, whose w is 0.75):

      loss = 1/B sum_i ( w (log sum_j exp(s_ij) - s_ii)  +  (1 - w) (log sum_j exp(s_ji) - s_ii) )

  Args:
    image: f32[B,D]; lengths do not matter.
    text: f32[B,D], the text of each image.
    scale: what the cosines are multiplied by, 1/temperature; CLIP learns its logarithm and keeps it below 100.
    image_weight: w, of the direction in which an image looks for its text; the other has the rest of 1.
    pairs: how the pairs are computed, see the head of this file.
    chunk: most texts at once.

  Raises:
    UserError: an unknown way, a chunk below 1, a batch that does not divide over the devices.

  Source: Radford, Kim, Hallacy et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021,
    arXiv 2103.00020; Zhang, Jiang, Miura, Manning, Langlotz, "Contrastive Learning of Medical Visual Representations
    from Paired Images and Text", 2020, arXiv 2010.00747.
  """
  x, y = scale * l2_normalize(image), l2_normalize(text)
  if pairs == "dense":
    logits = sharding.constrain(products(x, y))
    by_image, by_text = jax.nn.logsumexp(logits, axis=1), jax.nn.logsumexp(logits, axis=0)
  else:
    by_image, by_text = logsumexps(choose(pairs, chunk=chunk, rows=len(x), columns=len(y)), x, y)
  both = image_weight * jnp.mean(by_image) + (1 - image_weight) * jnp.mean(by_text)
  return both - jnp.mean(jnp.sum(x * y, axis=-1))


def sigmoid_loss(
  image: Array,
  text: Array,
  *,
  scale: float | Array,
  bias: float | Array,
  pairs: Pairs = "dense",
  chunk: int = CHUNK,
) -> Array:
  """Returns the sigmoid loss of image-text pairs f32[], the sum over all pairs divided by B, in nats.

  With x the images and y the texts, each divided by its length, and m_ij = 1 for i = j, -1 otherwise (section 3.2):

      loss = -1/B sum_ij log sigmoid( m_ij (scale x_i . y_j + bias) )

  Args:
    image: f32[B,D]; lengths do not matter.
    text: f32[B,D], the text of each image.
    scale: what the cosines are multiplied by; the authors start at 10.
    bias: what is added; the authors start at -10, where nearly all pairs are right to be no pairs.
    pairs: how the pairs are computed, see the head of this file.
    chunk: most texts at once.

  Raises:
    UserError: an unknown way, a chunk below 1, a batch that does not divide over the devices.

  Source: Zhai, Mustafa, Kolesnikov, Beyer, "Sigmoid Loss for Language Image Pre-Training", 2023, arXiv 2303.15343.
  """
  x, y = scale * l2_normalize(image), l2_normalize(text)
  if pairs == "dense":
    logits = sharding.constrain(products(x, y)) + bias
    return jnp.sum(jax.nn.softplus(jnp.where(jnp.eye(len(x), dtype=bool), -logits, logits))) / len(x)
  way = choose(pairs, chunk=chunk, rows=len(x), columns=len(y))
  return jnp.mean(row_softplus(way, x, y, jnp.full(len(x), bias, jnp.float32)))


def _interleave(a: Array, b: Array) -> Array:
  """Returns (a_0, b_0, a_1, b_1, ...), [2B,...]: both views of an example stay on its device."""
  return jnp.stack([a, b], axis=1).reshape(-1, *a.shape[1:])
