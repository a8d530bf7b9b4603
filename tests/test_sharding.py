"""The mesh, and where batches and states lie."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from ssljax import sharding
from ssljax.errors import UserError


def test_what_is_left_goes_to_the_free_axis():
  assert dict(sharding.make_mesh(fsdp=2).shape) == {"data": 4, "fsdp": 2, "tensor": 1}
  assert sharding.batch_devices(sharding.make_mesh(tensor=4)) == 2


@pytest.mark.parametrize("sizes", [{"data": 3}, {"data": -1, "fsdp": -1}, {"fsdp": 3}, {"data": 4}, {"data": 0}])
def test_sizes_that_do_not_fit(sizes):
  with pytest.raises(UserError, match="does not fit 8 devices"):
    sharding.make_mesh(**sizes)


def test_constrain_pins_the_example_axis_and_is_nothing_without_a_mesh():
  assert sharding.constrain(jnp.ones(8)).sharding.is_fully_replicated
  with jax.set_mesh(sharding.make_mesh()):
    placed = jax.jit(sharding.constrain)(jnp.ones((8, 2)))
  assert {shard.data.shape for shard in placed.addressable_shards} == {(1, 2)}


def test_rules_over_the_state():
  mesh = sharding.make_mesh()
  placed = sharding.state_sharding(mesh, {"params": jnp.ones(3)})
  assert placed["params"].spec == PartitionSpec()
  with pytest.raises(UserError, match="params has strategy fast, expected one of replicate"):
    sharding.state_sharding(mesh, {"params": jnp.ones(3)}, [("params", "fast")])
