"""A linear hypernetwork against one matrix an example."""

import jax
import jax.numpy as jnp
import numpy as np

from ssljax.models.hypernetwork import LinearHypernetwork


def test_each_example_has_the_matrix_its_numbers_choose():
  rng = np.random.default_rng(0)
  x, z, matrices = rng.normal(size=(5, 3)), rng.normal(size=(5, 2)), rng.normal(size=(2, 3, 3))
  module = LinearHypernetwork()
  shape = jax.eval_shape(module.init, jax.random.key(0), jnp.asarray(x), jnp.asarray(z))["params"]["kernel"].shape
  assert shape == (6, 3)
  found = module.apply({"params": {"kernel": jnp.asarray(matrices.reshape(6, 3))}}, jnp.asarray(x), jnp.asarray(z))
  expected = [x[n] @ sum(z[n, t] * matrices[t] for t in range(2)) for n in range(5)]
  np.testing.assert_allclose(found, expected, rtol=1e-4)
