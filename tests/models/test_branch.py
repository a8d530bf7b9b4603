"""A branch: its networks in a row, whose statistics move, and views one at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from ssljax.models.branch import Branch, as_images, as_views, couples
from ssljax.models.conv_autoencoder import ConvEncoder
from ssljax.models.heads import MLPHead
from ssljax.models.layers import drop_path
from ssljax.models.resnet import ResNet
from ssljax.models.vit import ViT


class Sums(nn.Module):
  """An encoder without batch statistics, some of whose examples are dropped where there are keys."""

  features: int = 4

  @nn.compact
  def __call__(self, images, *, keys=None, train=False):
    x = nn.Dense(self.features, name="fc")(images.reshape(len(images), -1))
    return {"embedding": x if keys is None else drop_path(x, keys, rate=0.5)}


BRANCH = Branch(Sums(), MLPHead(5, 3, 2), MLPHead(6, 3, 2, norm="none"))
VIEWS = jnp.asarray(np.random.default_rng(0).normal(size=(6, 2, 2, 2, 3)), jnp.float32)


@pytest.fixture(scope="module")
def started():
  return jax.jit(BRANCH.init)(jax.random.key(0), VIEWS)


def test_networks_are_asked_in_their_order(started):
  params, stats = started
  run = jax.jit(lambda p, s, x: BRANCH(p, s, x, train=False))
  found, after = run(params, stats, VIEWS[:, 0])
  embedding = VIEWS[:, 0].reshape(6, -1) @ params["encoder"]["fc"]["kernel"] + params["encoder"]["fc"]["bias"]
  x = embedding
  for name, output in (("projector", "projection"), ("predictor", "prediction")):
    bn = params[name].get("bn1", {"scale": (1 + 1e-5) ** 0.5, "bias": 0})
    x = x @ params[name]["fc1"]["kernel"] + params[name]["fc1"].get("bias", 0)
    x = jnp.maximum(x * bn["scale"] / (1 + 1e-5) ** 0.5 + bn["bias"], 0)  # running statistics are 0 and 1 at first
    x = x @ params[name]["fc2"]["kernel"] + params[name]["fc2"].get("bias", 0)
    np.testing.assert_allclose(found[output], x, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(found["embedding"], embedding, rtol=1e-5, atol=1e-6)
  assert stats["encoder"] == stats["predictor"] == {}
  jax.tree.map(np.testing.assert_array_equal, after, stats)


def test_a_shorter_branch_takes_its_part_of_longer_trees(started):
  params, stats = started
  short = Branch(BRANCH.encoder, BRANCH.projector)
  run = lambda branch: jax.jit(lambda x: branch(params, stats, x, train=True))(VIEWS[:, 0])
  (found, after), (longer, _) = run(short), run(BRANCH)
  assert set(found) == {"embedding", "projection"} and set(after) == {"encoder", "projector"}
  np.testing.assert_allclose(found["projection"], longer["projection"], rtol=1e-5)


def test_each_view_is_a_call_of_its_own(started):
  """Statistics of one view, running ones moved by both in their order, keys by example and view."""
  params, stats = started
  keys = jax.random.split(jax.random.key(2), 12)  # example after example

  def both(keys):
    found, after = BRANCH.each_view(params, stats, VIEWS, keys=keys)
    first, moved = BRANCH(params, stats, VIEWS[:, 0], train=True, keys=None if keys is None else keys[0::2])
    second, moved = BRANCH(params, moved, VIEWS[:, 1], train=True, keys=None if keys is None else keys[1::2])
    return (found, after), ([first, second], moved)

  run = jax.jit(both)
  for given in (None, keys):
    found, expected = run(given)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected)
  dropped = [np.asarray(view["embedding"] == 0).all(axis=1) for view in found[0]]
  assert all(0 < rows.sum() < 6 for rows in dropped) and (dropped[0] != dropped[1]).any()


def test_views_of_an_example_are_neighbours():
  images = as_images(VIEWS)
  np.testing.assert_array_equal(images[3], VIEWS[1, 1])
  np.testing.assert_array_equal(as_views(images, 2), VIEWS)


def test_networks_with_batch_normalisation_say_so():
  networks = {ResNet(depth=18): True, ConvEncoder(): True, ViT(variant="Ti", patch=4, image_size=8): False}
  for network, expected in networks.items():
    assert couples(network) == expected
    variables = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    assert ("batch_stats" in variables) == expected
