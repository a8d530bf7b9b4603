"""Self-distillation: a student's scores over prototypes against those of its own moving average.

Scores are logits f32[...,K] of K prototypes. The teacher's become probabilities either less a running centre, sharpened
by a low temperature (DINO, iBOT), or by `clustering.sinkhorn`.
"""

import jax
import jax.numpy as jnp

from ssljax.types import Array


def centred_softmax(logits: Array, center: Array, *, temperature: float | Array) -> Array:
  """Returns the teacher's probabilities softmax((logits - center) / temperature) f32[...,K], without gradient."""
  logits = jax.lax.stop_gradient(logits).astype(jnp.float32)
  return jax.nn.softmax((logits - center) / temperature, axis=-1)


def moved_center(center: Array, logits: Array, *, decay: float) -> Array:
  """Returns decay * center + (1 - decay) * mean of the logits over all axes but the last, f32[K].

  It is moved after the loss: the centre used in a step knows nothing of its batch.
  """
  logits = jax.lax.stop_gradient(logits).astype(jnp.float32)
  return decay * center + (1 - decay) * jnp.mean(logits.reshape(-1, logits.shape[-1]), axis=0)


def distillation(logits: Array, targets: Array, *, temperature: float | Array) -> Array:
  """Returns the cross entropy -sum_k p_k log softmax(logits / T)_k f32[...], in nats.

  Args:
    logits: f32[...,K], the student's.
    targets: f32[...,K], p, the teacher's probabilities.
    temperature: T.
  """
  return -jnp.sum(targets * jax.nn.log_softmax(logits.astype(jnp.float32) / temperature, axis=-1), axis=-1)


def entropy(p: Array) -> Array:
  """Returns the entropy -sum_k p_k log p_k f32[...] of probabilities p f32[...,K], in nats."""
  return -jnp.sum(jax.scipy.special.xlogy(p, p), axis=-1)


def dino_loss(logits: Array, targets: Array, *, temperature: float | Array) -> Array:
  """Returns the mean `distillation` f32[] over all pairs of a student's view and another view that the teacher saw.

  Args:
    logits: f32[B,V,K], the student's; the first of the V views are those of the teacher, in its order.
    targets: f32[B,Vt,K], the teacher's probabilities.
    temperature: the student's.

  Source: Caron et al., Emerging Properties in Self-Supervised Vision Transformers, 2021, arXiv 2104.14294.
  """
  pairs = distillation(logits[:, None], targets[:, :, None], temperature=temperature)  # [B,Vt,V]
  other = 1.0 - jnp.eye(*pairs.shape[1:])
  return jnp.sum(jnp.mean(pairs, axis=0) * other) / jnp.sum(other)


def ibot_loss(logits: Array, targets: Array, mask: Array, *, temperature: float) -> Array:
  """Returns the mean f32[] over images of the mean `distillation` over an image's hidden patches, 0 where none is.

  Args:
    logits: f32[B,...,N,K], of the student, who did not see the hidden patches.
    targets: f32[B,...,N,K], probabilities of the teacher, who saw them.
    mask: bool[B,...,N], the hidden ones.
    temperature: the student's.

  Source: Zhou et al., iBOT: Image BERT Pre-Training with Online Tokenizer, 2021, arXiv 2111.07832.
  """
  mask = mask.astype(jnp.float32)
  hidden = jnp.sum(distillation(logits, targets, temperature=temperature) * mask, axis=-1)
  return jnp.mean(hidden / jnp.maximum(jnp.sum(mask, axis=-1), 1.0))
