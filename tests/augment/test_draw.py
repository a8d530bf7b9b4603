import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.augment.draw import GLOBAL, LOCAL, draw_views
from ssljax.augment.recipes import RECIPES

COUNT = 4000


@pytest.fixture(scope="module")
def draws():
  views = RECIPES["byol"].views
  one, three = views[:1], (*views, views[0])
  aspect = jnp.exp(jnp.linspace(-1, 1, COUNT))

  @jax.jit
  def draw(seeds):
    keys = jax.vmap(jax.random.key)(seeds)
    first, second = draw_views(keys, aspect, one, first=GLOBAL), draw_views(keys, aspect, three, first=GLOBAL)
    return {"one": first, "three": second, "local": draw_views(keys, aspect, one, first=LOCAL).box}

  return {name: jax.tree.map(np.asarray, made) for name, made in draw(jnp.arange(COUNT)).items()}


def test_another_view_changes_no_other(draws):
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a[:, 0], b[:, 0], atol=1e-6), draws["one"], draws["three"])


def test_views_kinds_and_examples_have_their_own_numbers(draws):
  corners = np.concatenate([draws["three"].box[:50].reshape(-1, 4), draws["local"][:50].reshape(-1, 4)])[:, 1]
  corners = corners[corners > 0]  # the fallback of a long picture starts at the edge
  assert len(corners) > 150 and len(np.unique(corners)) == len(corners)
  sigma = draws["three"].sigma[:50].ravel()
  assert len(np.unique(sigma)) == len(sigma)


def test_shares_of_many_draws(draws):
  draw = draws["three"]  # the two views of BYOL and the first once more
  mirrored = draw.box[..., 2] < draw.box[..., 0]
  np.testing.assert_allclose(mirrored.mean(0), 0.5, atol=0.04)
  np.testing.assert_allclose(draw.gray.mean(0), 0.2, atol=0.03)
  np.testing.assert_allclose(draw.blur.mean(0), [1.0, 0.1, 1.0], atol=0.02)
  np.testing.assert_allclose(draw.solarize.mean(0), [0.0, 0.2, 0.0], atol=0.03)
  assert 0.1 <= draw.sigma.min() < 0.11 and 1.99 < draw.sigma.max() <= 2.0
  together = np.corrcoef(np.stack([mirrored[:, 0], draw.gray[:, 0], draw.gray[:, 1], draw.sigma[:, 0]]))
  assert np.abs(together - np.eye(4)).max() < 0.08  # operations and views do not share numbers
