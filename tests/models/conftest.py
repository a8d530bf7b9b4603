"""Parameters without compiling an initialisation."""

import jax
import numpy as np
import pytest


@pytest.fixture(scope="session")
def random_variables():
  """Returns function(module, *inputs) -> variables of its shapes, filled with small normal numbers."""

  def fill(module, *inputs, scale=0.2, **options):
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs, **options))
    numbers = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: scale * numbers.normal(size=leaf.shape).astype("float32"), shapes)

  return fill
