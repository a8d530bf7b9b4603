"""Refusals read, and bytes of a state against sums by hand."""

import types

import jax
import jax.numpy as jnp
import pytest
from hlo_texts import program
from jax.sharding import NamedSharding, PartitionSpec

from ssljax import sharding
from ssljax.planning import hlo, trips
from ssljax.planning.estimate import (
  Memory,
  bytes_wanted,
  compile_and_estimate,
  islands,
  measured,
  recomputed,
  state_bytes,
)
from ssljax.types import TrainState

REFUSALS = {
  "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 253.04G of 15.75G hbm. Exceeded hbm capacity by "
  "237.29G.": 253.04 * 2**30,
  "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (1.00T) exceeds "
  "available HBM (7.48G).": 2**40,
  "RESOURCE_EXHAUSTED: it is too much": None,
}


class Refusing:
  """A lowered program that no compiler takes."""

  def __init__(self, message):
    self._message = message

  def compile(self):
    raise jax.errors.JaxRuntimeError(self._message)


@pytest.mark.parametrize("message", REFUSALS)
def test_a_refusal_is_an_answer(message):
  v5e = types.SimpleNamespace(device_kind="TPU v5 lite")
  found = compile_and_estimate(Refusing(message), [v5e], limit=None)
  expected = REFUSALS[message]
  assert not found.fits and found.memory is None and found.limit == int(15.75 * 2**30)
  assert found.needed == (expected and int(expected)) and bytes_wanted(message) == found.needed


def test_another_error_is_none():
  with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
    compile_and_estimate(Refusing("INTERNAL: a bug"), [types.SimpleNamespace(device_kind="cpu")], limit=1)


def test_everything_is_added_up():
  assert Memory(arguments=1, temporaries=20, results=300, code=4000, peak=7).total == 4321


def test_temporaries_of_a_tpu_are_what_is_in_use_at_once():
  stats = types.SimpleNamespace(
    argument_size_in_bytes=10,
    temp_size_in_bytes=90,
    output_size_in_bytes=12,
    alias_size_in_bytes=9,
    generated_code_size_in_bytes=5,
    peak_memory_in_bytes=70,
  )
  assert measured(stats, tpu=True) == Memory(arguments=10, temporaries=60, results=3, code=5, peak=70)
  assert measured(stats, tpu=False).temporaries == 90
  stats.peak_memory_in_bytes = 120  # what lies in the chip's own memory is in it too
  assert measured(stats, tpu=True).temporaries == 90


def test_what_the_compiler_runs_again():
  lines = (
    "%x.remat = f32[4]{0} negate(%p0)",
    "%x.remat2.1 = f32[4]{0} negate(%p0)",
    "%remat.7 = f32[4]{0} negate(%p0)",
  )
  module = hlo.parse(program(*lines, parameters=["f32[4]"]))
  assert recomputed(module, trips.count(module)) == 2


def test_a_state_in_eighths():
  mesh = sharding.make_mesh(data=1, fsdp=8, devices=jax.devices()[:8])
  whole, cut = (NamedSharding(mesh, PartitionSpec(*spec)) for spec in ((), ("fsdp",)))
  leaf = lambda shape, place, dtype=jnp.float32: jax.ShapeDtypeStruct(shape, dtype, sharding=place)
  key = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 3))
  state = TrainState(
    step=leaf((), whole, jnp.int32),
    params={"w": leaf((64, 10), cut), "b": leaf((10,), whole)},
    opt_state=(leaf((64, 10), cut, jnp.bfloat16),),
    objective_state={"keys": jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=whole)},
    rng=None,
  )
  assert state_bytes(state) == {"parameters": 8 * 10 * 4 + 40, "optimizer": 8 * 10 * 2, "objective": 24}


def test_islands():
  device = lambda platform, slice_index, process: types.SimpleNamespace(
    platform=platform, slice_index=slice_index, process_index=process
  )
  assert islands([device("tpu", None, 0), device("tpu", None, 1)]) == [0, 0]
  assert islands([device("tpu", 0, 0), device("tpu", 1, 1)]) == [0, 1]
  assert islands([device("gpu", 0, 0), device("gpu", 0, 1)]) == [0, 1]
