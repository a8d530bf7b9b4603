"""Is the representation collapsing? Two measures of frozen features that need no labels."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from ssljax.evaluators.features import Features
from ssljax.types import Array


@jax.jit
def rankme(features: Array, *, eps: float = 1e-7) -> Array:
  """Returns the effective rank f32[] of features[N,D], from 1 (collapsed) to min(N,D).

  RankMe = exp(-sum_k p_k log p_k),  p_k = sigma_k / sum_j sigma_j + eps   (equations 1 and 2)

  with sigma the singular values of the features as they are: not centred, not normalised.

  Source: Garrido et al., "RankMe: Assessing the downstream performance of pretrained self-supervised
    representations by their rank", 2023, arXiv:2210.02885.
  """
  sigma = jnp.linalg.svd(jnp.asarray(features, jnp.float32), compute_uv=False)
  p = sigma / jnp.maximum(jnp.sum(sigma), jnp.finfo(jnp.float32).tiny) + eps
  return jnp.exp(-jnp.sum(jax.scipy.special.xlogy(p, p)))


@jax.jit
def feature_std(features: Array) -> Array:
  """Returns the mean over dimensions of the standard deviation of the L2-normalised rows of features[N,D].

  0 when every example has the same direction (collapse), 1/sqrt(D) when directions fill the sphere.

  Source: Chen and He, "Exploring Simple Siamese Representation Learning" (SimSiam), 2020, arXiv:2011.10566,
    figure 2.
  """
  length = jnp.linalg.norm(features, axis=-1, keepdims=True)
  return jnp.mean(jnp.std(features / jnp.maximum(length, 1e-12), axis=0))


def _sample(x: np.ndarray, samples: int) -> np.ndarray:
  """Returns at most `samples` rows, evenly spaced so that a split sorted by class is sampled from every class."""
  return x[np.linspace(0, len(x) - 1, min(samples, len(x))).round().astype(int)]


@dataclasses.dataclass(frozen=True)
class RankMe:
  """Effective rank of the training features (see `rankme`), as `rankme`.

  Attributes:
    samples: rows used at most; the paper finds the rank settled at 25,600.
    eps: added to each normalised singular value.
  """

  samples: int = 25_600
  eps: float = 1e-7

  def __call__(self, features: Features) -> dict[str, float]:
    """Returns {"rankme": effective rank}; bounded by the number of training rows and of dimensions."""
    return {"rankme": float(rankme(_sample(features.train_x, self.samples), eps=self.eps))}


@dataclasses.dataclass(frozen=True)
class FeatureStd:
  """Spread of the training features on the unit sphere (see `feature_std`), as `feature_std`.

  Attributes:
    samples: rows used at most.
  """

  samples: int = 25_600

  def __call__(self, features: Features) -> dict[str, float]:
    """Returns {"feature_std": mean standard deviation}; 0 is collapse, 1/sqrt(D) a full sphere."""
    return {"feature_std": float(feature_std(_sample(features.train_x, self.samples)))}
