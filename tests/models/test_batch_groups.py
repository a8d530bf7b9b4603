"""Batch statistics by groups: a loop over groups, who meets whom, and no example that moves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax import sharding
from ssljax.errors import UserError
from ssljax.models.batch_groups import Groups
from ssljax.models.layers import BatchNorm
from ssljax.models.resnet import ResNet

X = np.random.default_rng(0).normal(1.0, 2.0, size=(8, 3, 2, 5)).astype("float32")
VARIABLES = {
  "params": {"scale": np.linspace(0.5, 2, 5, dtype="float32"), "bias": np.linspace(-1, 1, 5, dtype="float32")},
  "batch_stats": {"mean": np.full(5, 0.3, "float32"), "var": np.full(5, 1.5, "float32")},
}


def slow(x, groups):
  """Normalised x and the next running statistics, one group after the other."""
  out, means, variances = np.zeros_like(x), [], []
  for group in groups:
    part = x[group].astype("float64")
    axes = tuple(range(part.ndim - 1))
    means.append(part.mean(axes))
    variances.append(part.var(axes))
    out[group] = (part - means[-1]) / np.sqrt(variances[-1] + 1e-5)
  scale, bias = VARIABLES["params"].values()
  running = {"mean": 0.9 * 0.3 + 0.1 * np.mean(means, 0), "var": 0.9 * 1.5 + 0.1 * np.mean(variances, 0)}
  return out * scale + bias, running


def apply(norm, x):
  run = lambda x: norm.apply(VARIABLES, x, mutable=["batch_stats"])
  return jax.jit(run)(x)


@pytest.mark.parametrize(
  ("order", "groups", "x"),
  [
    ("blocks", [[0, 1, 2, 3], [4, 5, 6, 7]], X),
    ("strides", [[0, 2, 4, 6], [1, 3, 5, 7]], X),
    ("strides", [[0, 4], [1, 5], [2, 6], [3, 7]], X[:, 0, 0]),
  ],
)
def test_statistics_are_those_of_the_group(order, groups, x):
  out, moved = apply(BatchNorm(use_running_average=False, groups=Groups(len(groups), order)), x)
  expected, running = slow(x, groups)
  np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), moved["batch_stats"], running)


def test_running_statistics_and_initialisation_know_no_groups():
  one, four = (BatchNorm(use_running_average=True, groups=groups) for groups in (Groups(), Groups(4)))
  np.testing.assert_array_equal(apply(four, X[:3])[0], apply(one, X[:3])[0])
  inits = [jax.eval_shape(norm.init, jax.random.key(0), X[:3]) for norm in (one, four)]
  assert inits[0] == inits[1]


def test_examples_of_a_block_meet_in_no_stride():
  blocks, strides = (Groups(4, order).members(16) for order in ("blocks", "strides"))
  together = (blocks.T @ blocks) & (strides.T @ strides)
  np.testing.assert_array_equal(together, np.eye(16, dtype=bool))


def test_on_devices_the_sums_alone_travel():
  norm = BatchNorm(use_running_average=False, groups=Groups(4, "strides"))
  run = jax.jit(lambda x: norm.apply(VARIABLES, x, mutable=["batch_stats"])[0])
  mesh = sharding.make_mesh()
  with jax.set_mesh(mesh):
    placed = jax.device_put(X, sharding.batch_sharding(mesh))
    compiled = run.lower(placed).compile()
  assert not [name for name in ("all-to-all", "all-gather", "collective-permute") if name in compiled.as_text()]
  np.testing.assert_allclose(compiled(placed), apply(norm, X)[0], atol=1e-5)


def test_a_resnet_has_them_in_every_normalisation(monkeypatch):
  model = ResNet(18, stem="cifar", groups=Groups(2, "strides"))
  seen = []
  held = BatchNorm.__call__
  monkeypatch.setattr(BatchNorm, "__call__", lambda self, x: (seen.append(self.groups), held(self, x))[1])
  jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((2, 8, 8, 3))))
  assert len(seen) == 20 and set(seen) == {Groups(2, "strides")}


def test_mistakes_are_named():
  with pytest.raises(UserError, match="3 groups of a batch of 8, expected a number that divides it"):
    Groups(3).members(8)
  with pytest.raises(UserError, match="groups: 0, expected at least 1"):
    Groups(0)
