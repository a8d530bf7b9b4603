"""Weighted k-nearest-neighbour classification of frozen features: nothing to train, nothing to tune."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from ssljax.evaluators.features import Features
from ssljax.types import Array

_CHUNK = 256  # test rows compared with the training set at once: similarities are f32[_CHUNK, N]


def normalize(x: Array) -> Array:
  """Returns the rows of x[N,D] at Euclidean length 1; a zero row stays zero."""
  return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


@functools.partial(jax.jit, static_argnames=("k", "num_classes"))
def predict(train_x: Array, train_y: Array, test_x: Array, *, k: int, temperature: float, num_classes: int) -> Array:
  """Returns the classes int32[M] of test_x[M,D] by the votes of their k nearest training rows.

  class = argmax_c sum_{i in top k} 1[y_i = c] exp(s_i / temperature), s_i the cosine similarity. The largest
  s_i is subtracted before the exponential, which changes no vote. Ties go to the lower class.

  Args:
    train_x: f32[N,D].
    train_y: int32[N].
    test_x: f32[M,D]; any M, it is compared in chunks.
    k: number of neighbours; all N where the training set is smaller.
    temperature: divides the cosine similarity.
    num_classes: number of classes.

  Source: Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", 2018,
    arXiv:1805.01978; Caron et al., "Emerging Properties in Self-Supervised Vision Transformers" (DINO), 2021,
    arXiv:2104.14294.
  Differs from the reference: fewer than 100 test rows are no error.
  """
  train, train_y = normalize(train_x), jnp.asarray(train_y)
  k = min(k, len(train_x))

  def vote(row: Array) -> Array:
    similarity, neighbour = jax.lax.top_k(jnp.matmul(train, row, precision="highest"), k)
    weight = jnp.exp((similarity - similarity[0]) / temperature)
    return jnp.argmax(jnp.zeros(num_classes).at[train_y[neighbour]].add(weight))

  return jax.lax.map(vote, normalize(test_x), batch_size=_CHUNK).astype(jnp.int32)


@functools.partial(jax.jit, static_argnames="k")
def nearest_rows(train_x: Array, test_x: Array, *, k: int) -> Array:
  """Returns the k most similar rows of train_x[N,D] for each row of test_x[M,D]: int32[M,k], nearest first."""
  train = normalize(train_x)
  return jax.lax.map(
    lambda row: jax.lax.top_k(jnp.matmul(train, row, precision="highest"), k)[1], normalize(test_x), batch_size=_CHUNK
  )


@dataclasses.dataclass(frozen=True)
class KNN:
  """Accuracy of the weighted k-nearest-neighbour classifier (see `predict`), as `knn`, share 0..1."""

  k: int = 20
  temperature: float = 0.07

  def __call__(self, features: Features) -> dict[str, float]:
    """Returns {"knn": accuracy on the test split}."""
    f = features.labelled("knn")
    predicted = predict(
      f.train_x, f.train_y, f.test_x, k=self.k, temperature=self.temperature, num_classes=f.num_classes
    )
    return {"knn": f.accuracy(np.asarray(predicted))}
