"""Collectives of programs made by hand: who takes part, how often, how many bytes; and of a small FSDP step."""

import jax
import jax.numpy as jnp
import pytest
from hlo_texts import LOOPS, program
from jax.sharding import NamedSharding, PartitionSpec

from ssljax import sharding
from ssljax.planning import collectives, hlo, trips

SAME = [0] * 8
TWO = [0, 0, 0, 0, 1, 1, 1, 1]  # two slices of four


def find(text, islands=SAME):
  module = hlo.parse(text)
  return collectives.find(module, trips.count(module), islands)


def one(line, *parameters, islands=SAME):
  (found,) = find(program(line, parameters=parameters), islands)
  return found


def gather(groups):
  return f"%y = f32[8,16]{{1,0}} all-gather(%p0), channel_id=1, replica_groups={groups}, dimensions={{0}}"


@pytest.mark.parametrize(
  ("groups", "devices", "crosses"),
  [
    ("{{0,1,2,3},{4,5,6,7}}", 4, False),
    ("{{0,4},{1,5},{2,6},{3,7}}", 2, True),
    ("[2,4]<=[8]", 4, False),
    ("[4,2]<=[2,4]T(1,0)", 2, True),
    ("mesh['a'=2,'b'=4] {'b'}", 4, False),
    ("mesh['a'=2,'b'=4] {'a'}", 2, True),
    ("mesh['a'=2,'b'=4] {'a','b'}", 8, True),
    ("mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'b'}", 2, True),
    ("mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}", 4, False),
    ("mesh['a'=2,'b'=4], device_ids=(0,4,1,5,2,6,3,7) {'b'}", 4, True),
    ("{}", 8, True),
  ],
)
def test_groups(groups, devices, crosses):
  found = one(gather(groups), "f32[2,16]", islands=TWO)
  assert (found.devices, found.crosses) == (devices, crosses)


def test_bytes_by_kind():
  """A ring of 8: everything is passed on seven times; an all-reduce goes around twice."""
  line = "%y = {result} {kind}(%p0), channel_id=1, replica_groups=[1,8]<=[8], dimensions={{0}}, to_apply=%add"
  form = lambda kind, result: line.format(kind=kind, result=result)
  whole, part = "f32[64,16]{1,0}", "f32[8,16]{1,0}"
  cases = {
    ("all-gather", part, whole): (4096, 3584),
    ("all-reduce", whole, whole): (4096, 7168),
    ("reduce-scatter", whole, part): (4096, 3584),
    ("all-to-all", whole, whole): (4096, 3584),
  }
  for (kind, operand, result), expected in cases.items():
    found = one(form(kind, result), operand)
    assert (found.kind, found.bytes, found.sent) == (kind, *expected)


def test_asynchronous_forms_count_once():
  """What is started carries its operands with it, and is not counted again when it is done."""
  lines = (
    "%s = (bf16[2,8]{1,0}, bf16[16,8]{1,0}) all-gather-start(%p0), channel_id=1, replica_groups=[1,8]<=[8]",
    "%d = bf16[16,8]{1,0} all-gather-done(%s)",
    "%r = bf16[16,8]{1,0} all-reduce-start(%d), channel_id=2, replica_groups=[1,8]<=[8], to_apply=%add",
    "%e = bf16[16,8]{1,0} all-reduce-done(%r)",
    "%q = (bf16[16,8]{1,0}, bf16[16,8]{1,0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%e), channel_id=3, "
    "source_target_pairs={{0,1},{1,2},{2,3},{3,4},{4,5},{5,6},{6,7},{7,0}}",
    "%y = bf16[16,8]{1,0} collective-permute-done(%q)",
  )
  table = collectives.by_kind(find(program(*lines, parameters=["bf16[2,8]"])))
  assert table == {
    "all-gather": {"count": 1, "bytes": 256, "sent": 224, "sent_across": 0},
    "all-reduce": {"count": 1, "bytes": 256, "sent": 448, "sent_across": 0},
    "collective-permute": {"count": 1, "bytes": 256, "sent": 256, "sent_across": 0},
  }


def test_several_arrays_at_once():
  line = "%y = (f32[8]{0}, /*index=1*/f32[4]{0}) all-reduce(%p0, %p1), channel_id=1, replica_groups={}, to_apply=%add"
  assert one(line, "f32[8]", "f32[4]").bytes == 48


def test_loops_multiply_and_slices_are_told_apart():
  text = LOOPS.replace(
    "%y = f32[2,4]{1,0} dot(%x, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}",
    "%y = f32[2,8]{1,0} all-reduce(%x), channel_id=5, replica_groups={{0,4},{1,5},{2,6},{3,7}}, to_apply=%add",
  ).replace("KNOWN", 'backend_config={"known_trip_count":{"n":"4"}}')
  found = collectives.by_kind(find(text, TWO))
  assert found == {"all-reduce": {"count": 12, "bytes": 12 * 64, "sent": 0, "sent_across": 12 * 64}}


REDUCE_SCATTER = """%all-reduce-scatter (input: f32[16,8]) -> f32[2,8] {
  %input = f32[16,8]{1,0} parameter(0)
  %sum = f32[16,8]{1,0} all-reduce(%input), channel_id=1, replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%add
  %id = u32[] partition-id()
  ROOT %mine = f32[2,8]{1,0} dynamic-slice(%sum, %id, %id), dynamic_slice_sizes={2,8}
}
"""


def test_a_sum_of_which_a_part_is_kept_is_a_reduce_scatter():
  line = "%y = f32[2,8]{1,0} fusion(%p0), kind=kCustom, calls=%all-reduce-scatter"
  (found,) = find(program(line, parameters=["f32[16,8]"], computations=REDUCE_SCATTER))
  assert (found.kind, found.bytes, found.sent) == ("reduce-scatter", 512, 448)


def test_a_transfer_spread_over_kernels_is_one():
  computations = "".join(
    f"%part{n} (a: f32[2,8]) -> f32[16,8] {{\n  %a = f32[2,8]{{1,0}} parameter(0)\n"
    f"  ROOT %g = f32[16,8]{{1,0}} all-gather(%a), channel_id=7, replica_groups=[1,8]<=[8], dimensions={{0}}\n}}\n\n"
    for n in range(2)
  )
  lines = [f"%y{n} = f32[16,8]{{1,0}} fusion(%p0), kind=kCustom, calls=%part{n}" for n in range(2)]
  assert len(find(program(*lines, parameters=["f32[2,8]"], computations=computations))) == 1


def test_alone_nobody_talks():
  assert find(program(gather("{{0},{1}}"), parameters=["f32[8,16]"]), [0, 0]) == []


def test_a_step_with_shared_parameters():
  """y = x w with w[256,128] in eighths: w is gathered, its gradient summed, each as large as w."""
  mesh = sharding.make_mesh(data=1, fsdp=8, devices=jax.devices()[:8])
  place = lambda *spec: NamedSharding(mesh, PartitionSpec(*spec))
  w = jax.ShapeDtypeStruct((256, 128), jnp.float32, sharding=place("fsdp"))
  x = jax.ShapeDtypeStruct((1024, 256), jnp.float32, sharding=place("fsdp"))
  step = jax.jit(lambda w, x: w - jax.grad(lambda w: jnp.sum(jnp.tanh(x @ w)))(w), out_shardings=place("fsdp"))
  table = collectives.by_kind(find(step.lower(w, x).compile().as_text()))
  size = 256 * 128 * 4
  assert table["all-gather"] == {"count": 1, "bytes": size, "sent": size * 7 // 8, "sent_across": 0}
  (summed,) = [row for kind, row in table.items() if kind in ("all-reduce", "reduce-scatter")]
  assert summed["bytes"] == size and len(table) == 2


def by_host(kind, given, got):
  """What a TPU makes of an operation between slices: its part goes to the host, and comes back from it."""
  names = '_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_host_transfer_rendezvous="it_0"'
  rest = f'is_host_transfer=true, frontend_attributes={{{names},_xla_megascale_transfer_type="{kind}"}}'
  lines = [
    f"%s = ({given}, u32[], token[]) send(%p0, %p1), channel_id=2, {rest}",
    f"%r = ({got}, u32[], token[]) recv(%p1), channel_id=1, {rest}",
    f"%y = ({got}, token[]) recv-done(%r), channel_id=1, {rest}",
  ]
  (found,) = find(program(*lines, parameters=[given, "token[]"]), TWO)
  return found


def test_hosts_send_between_slices():
  found = by_host("ALL_REDUCE", "f32[24,8]", "f32[24,8]")
  assert (found.kind, found.devices, found.crosses) == ("all-reduce", 2, True)
  assert (found.bytes, found.sent) == (768, 768)  # of two slices each sends a half, twice
  gathered = by_host("ALL_GATHER", "bf16[8]", "bf16[2,8]")
  assert (gathered.kind, gathered.bytes, gathered.sent) == ("all-gather", 32, 16)
  assert by_host("ONE_TO_ONE", "bf16[8]", "bf16[8]").kind == "collective-permute"
