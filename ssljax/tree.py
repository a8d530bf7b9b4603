"""Pytrees by path: one name per leaf, rules by regular expression, a checksum that survives resharding."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssljax.types import Array, PyTree


def is_key_array(leaf: Any) -> bool:
  """Returns whether an array is a typed random key."""
  return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def path_name(path: Sequence[Any]) -> str:
  """Returns a key path as `"params/encoder/blocks/attn/qkv/kernel"`."""
  return "/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path)


def named_leaves(tree: PyTree) -> list[tuple[str, Any]]:
  """Returns (path name, leaf) pairs in tree order."""
  return [(path_name(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def at(nested: PyTree, path: str) -> PyTree:
  """Returns what lies at `path` ("a/b"; "" is all of it) in nested dicts, {} where nothing does."""
  for key in path.split("/") if path else ():
    nested = nested.get(key, {})
  return nested


def map_named(function: Callable[..., Any], tree: PyTree, *rest: PyTree) -> PyTree:
  """Returns `tree` with `function(path name, leaf, *leaves of rest)` in place of each leaf."""
  return jax.tree_util.tree_map_with_path(lambda path, *leaves: function(path_name(path), *leaves), tree, *rest)


def first_match(rules: Sequence[tuple[str, Any]], name: str, default: Any = None) -> Any:
  """Returns the value of the first (regex, value) rule whose regex is found in `name`, else `default`."""
  return first_match_of(rules, (name,), default)


def first_match_of(rules: Sequence[tuple[str, Any]], names: Sequence[str], default: Any = None) -> Any:
  """Returns the same for something of several names: the first rule counts whose regex is found in one of them."""
  return next((value for pattern, value in rules if any(re.search(pattern, name) for name in names)), default)


def size(tree: PyTree) -> int:
  """Returns the number of scalars in the tree (parameters, not bytes)."""
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def moved(held: PyTree, new: PyTree, *, decay: float | Array) -> PyTree:
  """Returns decay * held + (1 - decay) * new of each leaf, without gradient: an average that moves (a teacher)."""
  rate = 1 - decay
  return jax.lax.stop_gradient(jax.tree.map(lambda a, b: a + rate * (b - a), held, new))


def fold(tree: PyTree) -> PyTree:
  """Returns a checksum uint32[2] per leaf that is the same on any mesh.

  Two position-weighted sums of the raw bits modulo 2^32: integer additions commute, so the order in which
  devices add does not matter. One flipped bit changes the sum (the weights are odd).
  """

  def one(x: Array) -> Array:
    x = jnp.asarray(jax.random.key_data(x) if is_key_array(x) else x)
    x = x.astype(jnp.uint8) if x.dtype == jnp.bool_ else x
    bits = jax.lax.bitcast_convert_type(
      x, {8: jnp.uint32, 4: jnp.uint32, 2: jnp.uint16, 1: jnp.uint8}[x.dtype.itemsize]
    )
    bits = bits.astype(jnp.uint32).ravel()
    weight = (jax.lax.iota(jnp.uint32, bits.size) * jnp.uint32(2654435761)) | jnp.uint32(1)
    mixed = bits ^ (bits >> 16)
    return jnp.stack(
      [
        jnp.sum(bits * weight, dtype=jnp.uint32),
        jnp.sum(mixed * ((weight ^ jnp.uint32(0x9E3779B9)) | jnp.uint32(1)), dtype=jnp.uint32),
      ]
    )

  return jax.tree.map(one, tree)
