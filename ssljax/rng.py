"""Random keys that depend on (seed, example, step) alone: never on mesh, hosts, workers or rematerialisation."""

import jax
import jax.numpy as jnp

from ssljax.types import Array

AUGMENT, LOSS, INIT, SHOW, HEALTH = range(5)  # what a key is used for; the numbers are part of a run's identity


def use_key(rng: Array, use: int) -> Array:
  """Returns the run's key for one use (`AUGMENT`, `LOSS`, ...)."""
  return jax.random.fold_in(rng, use)


def example_keys(rng: Array, index: Array) -> Array:
  """Returns one key per example: key[B] from the run's key for a use and `index` uint32[B,2].

  `index` is the example's position in the stream as (high, low) 32-bit words: position = step * batch
  size + row, which outgrows 32 bits within one long run.
  """

  def one(words: Array) -> Array:
    return jax.random.fold_in(jax.random.fold_in(rng, words[0]), words[1])

  return jax.vmap(one)(index.astype(jnp.uint32))


def spread(keys: Array, use: int, count: int) -> Array:
  """Returns `count` keys for each of keys[B], for one use, example after example: key[B*count] (of views, crops)."""
  one = lambda key: jax.random.split(jax.random.fold_in(key, use), count)
  return jax.vmap(one)(keys).reshape(-1)
