"""A batch in pieces that stay in the cache of a CPU."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ssljax import sharding
from ssljax.types import Array, PyTree

CACHE = 1 << 20  # bytes; half of a usual L2 cache, the rest is for temporaries


def map_chunks(function: Callable[..., Array], *args: PyTree, example_bytes: int) -> Array:
  """Returns function(*args), on a CPU computed for a few examples after the other; elsewhere at once.

  XLA makes one pass over the batch for each operation: images of a whole batch leave the cache in between, those of
  a few do not (measured: 1.4 times faster or more). Every device works through its own examples.

  Args:
    function: treats examples independently; every array it takes or returns has the example on axis 0.
    *args: pytrees of arrays.
    example_bytes: how many bytes one example takes in the function.
  """
  batch = len(jax.tree.leaves(args)[0])
  devices = _batch_devices()
  size = _chunk_size(batch // devices, CACHE // example_bytes)
  if sharding.platform() != "cpu" or batch % devices or size == batch // devices:
    return function(*args)
  pieces = (devices, batch // devices // size, size)

  def split(x: Array) -> Array:
    return jnp.moveaxis(x.reshape(*pieces, *x.shape[1:]), 1, 0).reshape(pieces[1], devices * size, *x.shape[1:])

  def join(x: Array) -> Array:
    return jnp.moveaxis(x.reshape(pieces[1], devices, size, *x.shape[2:]), 0, 1).reshape(batch, *x.shape[2:])

  def step(chunk: PyTree) -> Array:
    return sharding.constrain(function(*jax.tree.map(sharding.constrain, chunk)))

  return join(jax.lax.map(step, jax.tree.map(split, args)))


def _chunk_size(examples: int, most: int) -> int:
  """Returns the largest divisor of `examples` that is at most `most` (at least 1)."""
  return max(size for size in range(1, max(1, min(most, examples)) + 1) if examples % size == 0)


def _batch_devices() -> int:
  mesh = jax.sharding.get_abstract_mesh()
  return sharding.batch_devices(mesh) if "data" in mesh.axis_names else 1
