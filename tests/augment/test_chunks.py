import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax import sharding
from ssljax.augment import chunks


def double_and_add(pair, offset):
  return pair["a"] * 2 + offset[:, None]


@pytest.mark.parametrize("batch", [1, 7, 12])
@pytest.mark.parametrize("example_bytes", [1, chunks.CACHE // 4, chunks.CACHE * 9])
def test_same_as_at_once(batch, example_bytes):
  a, offset = jnp.arange(batch * 3.0).reshape(batch, 3), jnp.arange(batch * 1.0)
  found = chunks.map_chunks(double_and_add, {"a": a}, offset, example_bytes=example_bytes)
  np.testing.assert_array_equal(found, double_and_add({"a": a}, offset))


@pytest.mark.parametrize("examples, most, expected", [(128, 10, 8), (12, 5, 4), (7, 8, 7), (13, 8, 1), (4, 0, 1)])
def test_chunks_divide_the_batch(examples, most, expected):
  assert chunks._chunk_size(examples, most) == expected


def test_every_device_works_through_its_own_examples():
  mesh = sharding.make_mesh()
  whole = jnp.arange(32.0 * 3).reshape(32, 3), jnp.arange(32.0)
  args = jax.device_put(whole, sharding.batch_sharding(mesh))
  with jax.set_mesh(mesh):
    mapped = jax.jit(lambda a, b: chunks.map_chunks(double_and_add, {"a": a}, b, example_bytes=chunks.CACHE // 2))
    compiled = mapped.lower(*args).compile()
  assert "while" in compiled.as_text()
  for collective in ("all-gather", "all-to-all", "collective-permute", "all-reduce"):
    assert collective not in compiled.as_text()
  np.testing.assert_array_equal(compiled(*args), double_and_add({"a": whole[0]}, whole[1]))
