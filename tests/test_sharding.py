"""The mesh, and where batches and states lie."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax import sharding
from ssljax.errors import UserError
from ssljax.models.layers import Attention


def test_what_is_left_goes_to_the_free_axis():
  assert dict(sharding.make_mesh(fsdp=2).shape) == {"slice": 1, "data": 4, "fsdp": 2, "tensor": 1}
  assert sharding.batch_devices(sharding.make_mesh(tensor=4)) == 2
  assert sharding.batch_devices(sharding.make_mesh(slice=2, tensor=2)) == 4


def test_neighbours_share_the_inner_axes():
  ids = np.vectorize(lambda device: device.id)(sharding.make_mesh(data=2, fsdp=2, tensor=2).devices)
  np.testing.assert_array_equal(ids[0], np.arange(8).reshape(2, 2, 2))


@pytest.mark.parametrize(
  ("sizes", "found"),
  [
    ({"data": 3}, "data=3"),
    ({"data": -1, "fsdp": -1}, "data=-1 x fsdp=-1"),
    ({"fsdp": 3}, "data=-1 x fsdp=3"),
    ({"data": 4}, "data=4"),
    ({"data": 1}, "all axes 1"),
    ({"data": 0}, "data=0"),
  ],
)
def test_sizes_that_do_not_fit(sizes, found):
  expected = f"mesh: {found} does not fit 8 devices, expected sizes that multiply to 8, each one of 1, 2, 4, 8"
  with pytest.raises(UserError, match=expected):
    sharding.make_mesh(**sizes)


def test_constrain_pins_the_example_axis_and_is_nothing_without_a_mesh():
  assert sharding.constrain(jnp.ones(8)).sharding.is_fully_replicated
  with jax.set_mesh(sharding.make_mesh()):
    placed = jax.jit(sharding.constrain)(jnp.ones((8, 2)))
    one = jax.jit(sharding.constrain)(jnp.ones((1, 2)))
  assert {shard.data.shape for shard in placed.addressable_shards} == {(1, 2)}
  assert one.shape == (1, 2)


def test_heads_and_hidden_numbers_lie_over_tensor():
  with jax.set_mesh(sharding.make_mesh(fsdp=2, tensor=2)):
    heads = jax.jit(sharding.split_heads)(jnp.ones((8, 3, 4, 5)))
    last = jax.jit(sharding.split_last)(jnp.ones((8, 6)))
  assert {shard.data.shape for shard in heads.addressable_shards} == {(2, 3, 2, 5)}
  assert {shard.data.shape for shard in last.addressable_shards} == {(2, 3)}


def test_a_tensor_axis_must_divide_the_heads():
  attention = Attention(heads=3)
  with (
    jax.set_mesh(sharding.make_mesh(tensor=2)),
    pytest.raises(UserError, match=r"mesh\.tensor: 2 does not divide the 3 heads of attention"),
  ):
    jax.eval_shape(attention.init, jax.random.key(0), jnp.ones((1, 4, 12)))


BLOCK = {
  "attn": {"qkv": {"kernel": (2, 32, 3, 32), "bias": (2, 96)}, "proj": {"kernel": (2, 32, 32), "bias": (2, 32)}},
  "mlp": {"fc1": {"kernel": (2, 32, 64), "bias": (2, 64)}, "fc2": {"kernel": (2, 64, 32), "bias": (2, 32)}},
  "norm1": {"scale": (2, 32)},
}


def abstract(pytree):
  leaf = lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32)
  return jax.tree.map(leaf, pytree, is_leaf=lambda x: type(x) is tuple)


def specs(rules, **sizes):
  """Path -> spec of a state with a block, its moment, its teacher and a row of factored moments."""
  row = {"blocks": {"attn": {"qkv": {"kernel": (2, 3, 32)}}}}
  blocks = {"blocks": BLOCK}
  state = {"params": blocks, "opt_state": {"mu": blocks, "row": row}, "objective_state": {"teacher": blocks}}
  placed = sharding.state_sharding(sharding.make_mesh(**sizes), abstract(state), rules, fsdp_min_size=128)
  flat = jax.tree_util.tree_leaves_with_path(placed)
  return {"/".join(key.key for key in path): tuple(leaf.spec) for path, leaf in flat}


def test_fsdp_cuts_the_largest_axis_of_what_is_large_enough():
  found = specs([(".*", "fsdp")], fsdp=8, data=1)
  for place in ("params", "opt_state/mu", "objective_state/teacher"):
    assert found[f"{place}/blocks/attn/qkv/kernel"] == (None, None, None, "fsdp")
    assert found[f"{place}/blocks/mlp/fc1/kernel"] == (None, None, "fsdp")
    assert found[f"{place}/blocks/mlp/fc2/kernel"] == (None, "fsdp", None)
    assert found[f"{place}/blocks/mlp/fc1/bias"] == (None, "fsdp")
    assert found[f"{place}/blocks/norm1/scale"] == (None, None)
  assert found["opt_state/row/blocks/attn/qkv/kernel"] == (None, None, "fsdp")


def test_tensor_goes_by_the_name_of_the_parameter():
  found = specs([(".*", "tensor")], tensor=2)
  for place in ("params", "opt_state/mu", "objective_state/teacher"):
    assert found[f"{place}/blocks/attn/qkv/kernel"] == (None, None, None, "tensor")
    assert found[f"{place}/blocks/attn/proj/kernel"] == (None, "tensor", None)
    assert found[f"{place}/blocks/mlp/fc1/kernel"] == (None, None, "tensor")
    assert found[f"{place}/blocks/mlp/fc1/bias"] == (None, "tensor")
    assert found[f"{place}/blocks/mlp/fc2/kernel"] == (None, "tensor", None)
    for whole in ("attn/qkv/bias", "attn/proj/bias", "mlp/fc2/bias", "norm1/scale"):
      assert set(found[f"{place}/blocks/{whole}"]) == {None}
  assert found["opt_state/row/blocks/attn/qkv/kernel"] == (None, None, None)


def test_both_take_different_axes_and_the_first_rule_counts():
  found = specs([("teacher", "replicate"), (".*", "fsdp+tensor")], fsdp=2, tensor=2)
  assert found["params/blocks/attn/qkv/kernel"] == (None, "fsdp", None, "tensor")
  assert found["params/blocks/mlp/fc2/kernel"] == (None, "tensor", "fsdp")
  assert set(found["objective_state/teacher/blocks/mlp/fc2/kernel"]) == {None}


def test_rules_that_do_not_fit():
  mesh = sharding.make_mesh(tensor=8)
  with pytest.raises(UserError, match=r"params has strategy fsdb \(did you mean fsdp\?"):
    sharding.state_sharding(mesh, {"params": jnp.ones(3)}, [("params", "fsdb")])
  hidden = abstract({"params": {"mlp": {"fc1": {"kernel": (4, 12)}}}})
  with pytest.raises(UserError, match=r"mesh.tensor: 8 does not divide the 12 of params/mlp/fc1/kernel\[4, 12\]"):
    sharding.state_sharding(mesh, hidden)
