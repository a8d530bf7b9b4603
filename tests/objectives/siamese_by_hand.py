"""Two views through encoder, projector and predictor in float64, network by network: what MoCo, BYOL, SimSiam and
DirectPred are compared with; and the smallest encoder with batch statistics."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from ssljax.models.batch_groups import Groups
from ssljax.models.layers import BatchNorm, Dense

BATCH, SIZE, WIDTH = 8, 2, 6
KEY = jax.random.key(7)


class Pixels(nn.Module):
  """relu(batch norm(all pixels times a matrix))."""

  features: int = WIDTH
  dtype: str = "float32"
  groups: Groups = Groups()

  @nn.compact
  def __call__(self, images, *, keep=None, keys=None, train=False):
    x = Dense(self.features, bias="absent", name="fc1")(images.reshape(len(images), -1))
    norm = BatchNorm(use_running_average=not train, groups=self.groups, name="bn1")
    return {"embedding": nn.relu(norm(x))}


def make_batch(seed=0, count=BATCH, views=2):
  images = np.random.default_rng(seed).normal(size=(count, views, SIZE, SIZE, 3))
  index = np.stack([np.zeros(count), np.arange(count)], axis=1)
  return {"views": jnp.asarray(images, jnp.float32), "index": jnp.asarray(index, jnp.uint32)}


def started(objective):
  """Parameters and a state of which no leaf is what it began as, and compiled loss and gradient of a batch."""
  params, state = jax.jit(objective.init)(jax.random.key(0), make_batch())
  draw = np.random.default_rng(1).normal
  shift = lambda x: x + 0.1 * draw(size=x.shape).astype("float32")
  params, state = jax.tree.map(shift, params), jax.tree.map(shift, state)

  def loss(params, state, batch, step):
    out = objective.loss(params, state, batch, rng=KEY, step=step)
    return out.loss, out

  return params, state, jax.jit(jax.value_and_grad(loss, has_aux=True))


def wide(tree):
  return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def unit(x):
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


def cosine(x, y):
  return np.mean([np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(x, y, strict=True)])


def normalised(x, params, stats, groups):
  """Batch normalisation of rows, and the next running statistics."""
  out, means, variances = np.zeros_like(x), [], []
  for rows in groups or [list(range(len(x)))]:
    means.append(x[rows].mean(0))
    variances.append(((x[rows] - means[-1]) ** 2).mean(0))
    out[rows] = (x[rows] - means[-1]) / np.sqrt(variances[-1] + 1e-5)
  moved = {
    "mean": 0.9 * stats["mean"] + 0.1 * np.mean(means, 0),
    "var": 0.9 * stats["var"] + 0.1 * np.mean(variances, 0),
  }
  return out * params.get("scale", 1.0) + params.get("bias", 0.0), moved


def network(params, stats, x, *, groups=None):
  """Dense layers with what normalisations there are, a relu between two of them."""
  layers = sum(name.startswith("fc") for name in params)
  moved = {}
  for n in range(1, layers + 1):
    x = x @ params[f"fc{n}"]["kernel"] + params[f"fc{n}"].get("bias", 0.0)
    if f"bn{n}" in stats:
      x, moved[f"bn{n}"] = normalised(x, params.get(f"bn{n}", {}), stats[f"bn{n}"], groups)
    x = np.maximum(x, 0) if n < layers else x
  return x, moved


def branch(params, stats, images, *, groups=None):
  """What each network gives, by its name, and the next statistics."""
  x, found, moved = np.float64(images).reshape(len(images), -1), {}, {}
  for name in [name for name in ("encoder", "projector", "predictor") if name in stats]:
    x, moved[name] = network(params[name], stats[name], x, groups=groups)
    x = np.maximum(x, 0) if name == "encoder" else x
    found[name] = x
  return found, moved


def each_view(params, stats, views):
  found = []
  for v in range(views.shape[1]):
    outputs, stats = branch(params, stats, views[:, v])
    found.append(outputs)
  return found, stats


def close(found, expected, rtol=1e-4, atol=1e-5):
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), found, expected)


def check_gradient(gradients, loss, params, eps=1e-4):
  """The gradient along a direction in each network equals the difference of the loss by hand, loss(params)."""
  params, gradients = wide(params), wide(gradients)
  draw = np.random.default_rng(5).normal
  for name in params:
    along = jax.tree.map(lambda x: draw(size=x.shape), params[name])
    at = [jax.tree.map(lambda x, d, e=e: x + e * d, params[name], along) for e in (eps, -eps)]
    above, below = (loss({**params, name: moved}) for moved in at)
    found = sum(jax.tree.leaves(jax.tree.map(lambda g, d: np.sum(g * d), gradients[name], along)))
    np.testing.assert_allclose(found, (above - below) / (2 * eps), rtol=2e-3, atol=2e-4, err_msg=name)
