"""Paths, rules, and the checksum that survives resharding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ssljax import sharding, tree
from ssljax.types import TrainState

TREE = {"a": {"kernel": np.arange(24, dtype=np.float32).reshape(8, 3)}, "b": [np.arange(8, dtype=np.uint8)]}


def oracle(array):
  """The checksum by Python integers, one element at a time."""
  bits = [int(word) for word in np.ravel(array).view({4: np.uint32, 1: np.uint8}[array.dtype.itemsize])]
  first = second = 0
  for i, word in enumerate(bits):
    weight = (i * 2654435761) % 2**32 | 1
    first += word * weight
    second += (word ^ (word >> 16)) * ((weight ^ 0x9E3779B9) | 1)
  return [first % 2**32, second % 2**32]


def test_names():
  state = TrainState(step=0, params=TREE, opt_state=(1,), objective_state={}, rng=2)
  assert [name for name, _ in tree.named_leaves(state)] == [
    "step",
    "params/a/kernel",
    "params/b/0",
    "opt_state/0",
    "rng",
  ]


def test_first_match():
  rules = [("bias$", 1), ("^params/a", 2)]
  assert [tree.first_match(rules, name, 0) for name in ("params/a/bias", "params/a/kernel", "b")] == [1, 2, 0]


def test_fold_is_its_formula_on_any_mesh():
  expected = {name: oracle(leaf) for name, leaf in tree.named_leaves(TREE)}
  for count in (1, 8):
    place = NamedSharding(sharding.make_mesh(devices=jax.devices()[:count]), PartitionSpec("data"))
    found = jax.jit(tree.fold)(jax.device_put(TREE, place))
    assert {name: leaf.tolist() for name, leaf in tree.named_leaves(found)} == expected


@pytest.mark.parametrize("bit", [0, 9, 31])
def test_one_flipped_bit_shows(bit):
  words = np.arange(1, 65, dtype=np.uint32)
  flipped = words.copy()
  flipped[17] ^= np.uint32(1 << bit)
  a, b = (np.asarray(tree.fold(jnp.asarray(w.view(np.float32)))) for w in (words, flipped))
  assert (a != b).any()


def test_fold_takes_keys_and_booleans():
  found = tree.fold({"key": jax.random.key(3), "mask": jnp.array([True, False]), "half": jnp.ones(3, jnp.bfloat16)})
  assert all(leaf.shape == (2,) for leaf in jax.tree.leaves(found))
  assert (found["key"] != tree.fold(jax.random.key(4))).any()


def test_size():
  assert tree.size(TREE) == 32


def test_an_average_moves_by_its_share_and_without_gradient():
  held, new = {"a": jnp.array([1.0, 2.0]), "b": jnp.array(4.0)}, {"a": jnp.array([3.0, -2.0]), "b": jnp.array(0.0)}
  moved = tree.moved(held, new, decay=0.75)
  np.testing.assert_allclose(moved["a"], [1.5, 1.0])
  assert float(moved["b"]) == 3.0
  kept, taken = (tree.moved(held, new, decay=jnp.float32(decay)) for decay in (1, 0))
  assert jax.tree.all(jax.tree.map(jnp.array_equal, kept, held))
  assert jax.tree.all(jax.tree.map(jnp.array_equal, taken, new))
  total = lambda held, new: sum(jnp.sum(leaf) for leaf in jax.tree.leaves(tree.moved(held, new, decay=0.5)))
  gradients = jax.grad(total, argnums=(0, 1))(held, new)
  assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradients))
