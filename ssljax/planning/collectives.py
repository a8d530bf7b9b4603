"""What a compiled program sends between devices: collectives by kind, how often, how many bytes, over which network."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ssljax.planning.hlo import Computation, Instruction, Module
from ssljax.planning.trips import Trips

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
_OPCODES = {
  **{kind: kind for kind in KINDS},
  **{f"{kind}-start": kind for kind in KINDS},
  "ragged-all-to-all": KINDS[3],
}
_BY_HOST = '_xla_host_transfer_handler_name="xla_megascale_runtime"'


class Collective(NamedTuple):
  """One collective of a program.

  Attributes:
    kind: one of KINDS.
    runs: how often it runs in one run of the program.
    bytes: of the array a device has, or gets, whole: the larger of operand and result; of one run.
    sent: bytes a device sends in one run, where neighbours pass on parts around a ring.
    devices: how many take part together.
    crosses: whether some of them are in different slices (or hosts, of GPUs).
    place: the line of the program it comes from, as jax names it.
  """

  kind: str
  runs: int
  bytes: int
  sent: int
  devices: int
  crosses: bool
  place: str


def find(module: Module, trips: Trips, islands: Sequence[int]) -> list[Collective]:
  """Returns the collectives of a program.

  A transfer that is started in one kernel and goes on in others has one channel; it counts once. A reduction of which
  the same kernel keeps only a part is a reduce-scatter. Between slices a TPU hands its part to the host, which sends
  and receives for it.

  Args:
    module: the program.
    trips: how often its computations run.
    islands: for each device, in the program's order, the number of its slice (or host): what a fast network joins.
  """
  found: dict[str, Collective] = {}
  for name, runs in (trips.executed + trips.fused).items():
    computation = module.computations[name]
    for instruction in computation:
      if instruction.opcode in _OPCODES:
        channel = re.search(r"channel_id=(\d+)", instruction.attributes)
        key = f"channel {channel[1]}" if channel else f"{name} {instruction.name}"
        one = _collective(computation, instruction, runs, islands)
      elif instruction.opcode in ("send", "recv") and _BY_HOST in instruction.attributes:
        key = f"host {_quoted('_xla_host_transfer_rendezvous', instruction)}"
        one = _by_host(computation, instruction, runs, slices=len(set(islands)))
      else:
        continue
      if key not in found or (one.runs, one.bytes) > (found[key].runs, found[key].bytes):
        found[key] = one
  return [one for one in found.values() if one.devices > 1]


def _collective(computation: Computation, instruction: Instruction, runs: int, islands: Sequence[int]) -> Collective:
  kind, groups = _OPCODES[instruction.opcode], _groups(instruction.attributes, len(islands))
  if kind == "all-reduce" and _keeps_a_part(computation, instruction):
    kind = "reduce-scatter"
  operands = [shape for name in instruction.operands for shape in computation.instructions[name].shapes]
  results = list(instruction.shapes)
  if instruction.opcode.endswith("-start") and [s.dims for s in results[: len(operands)]] == [s.dims for s in operands]:
    # What is started carries its operands with it, and flags.
    results = [shape for shape in results[len(operands) :] if shape.dims]
  size = max(sum(shape.bytes for shape in operands), sum(shape.bytes for shape in results))
  members = max(len(group) for group in groups)
  crosses = any(len({islands[device] for device in group}) > 1 for group in groups)
  return Collective(kind, runs, size, _sent(kind, size, members), members, crosses, _quoted("op_name", instruction))


def _by_host(computation: Computation, instruction: Instruction, runs: int, *, slices: int) -> Collective:
  """Returns what a device has sent, or gets, between slices; each has one device with the same part of the array."""
  kind = _quoted("_xla_megascale_transfer_type", instruction).lower().replace("_", "-")
  kind = kind if kind in KINDS else "collective-permute"
  given = computation.operand(instruction, 0) if instruction.opcode == "send" else instruction
  size = given.shapes[0].bytes
  return Collective(kind, runs, size, _sent(kind, size, slices), slices, True, _quoted("op_name", instruction))


def _sent(kind: str, size: int, members: int) -> int:
  share = {"all-reduce": 2 * (members - 1) / members, "collective-permute": 1.0}.get(kind, (members - 1) / members)
  return round(size * share)


def _quoted(key: str, instruction: Instruction) -> str:
  found = re.search(rf'{key}="([^"]*)"', instruction.attributes)
  return found[1] if found else ""


def _keeps_a_part(computation: Computation, instruction: Instruction) -> bool:
  """Returns whether a kernel's all-reduce is read by slicing alone, as a TPU writes reduce-scatter."""
  users = computation.users.get(instruction.name, ())
  return bool(users) and all(user.opcode == "dynamic-slice" for user in users)


def _groups(attributes: str, devices: int) -> list[list[int]]:
  """Returns who talks to whom, as numbers of devices."""
  pairs = re.search(r"source_target_pairs={({.*?})}", attributes)
  if pairs:
    return [[int(n) for n in pair.split(",")] for pair in re.findall(r"{([\d,]+)}", pairs[1])]
  listed = re.search(r"replica_groups={({[\d,{} ]*})}", attributes)
  if listed:
    return [[int(n) for n in group.split(",")] for group in re.findall(r"{([\d,]+)}", listed[1])]
  counted = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes)
  if counted:
    shape, dims, order = ([int(n) for n in part.split(",")] if part else [] for part in counted.groups())
    return _numbered(dims, order).reshape(shape).tolist()
  meshed = re.search(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(([^ ]*)\))? {([^}]*)}", attributes)
  return _of_mesh(*meshed.groups()) if meshed else [list(range(devices))]


def _numbered(dims: list[int], order: list[int]) -> np.ndarray:
  numbers = np.arange(int(np.prod(dims))).reshape(dims)
  return numbers.transpose(order) if order else numbers


def _of_mesh(axes: str, devices: str | None, named: str) -> list[list[int]]:
  """Returns the groups along the named axes of a mesh."""
  sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", axes)}
  along = re.findall(r"'([^']+)'", named)
  numbers = _device_ids(devices, int(np.prod(list(sizes.values())))).reshape(list(sizes.values()))
  names = list(sizes)
  order = [names.index(n) for n in names if n not in along] + [names.index(n) for n in along]
  return numbers.transpose(order).reshape(-1, int(np.prod([sizes[n] for n in along]))).tolist()


def _device_ids(text: str | None, count: int) -> np.ndarray:
  """Returns the devices in a mesh's order, from nothing, a list "4,5,6,7", or "[2,4]T(1,0)": counted and transposed."""
  turned = re.fullmatch(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", text or "")
  if turned:
    dims, order = ([int(n) for n in part.split(",")] if part else [] for part in turned.groups())
    return _numbered(dims, order)
  return np.array([int(n) for n in text.split(",")]) if text else np.arange(count)


def by_kind(collectives: Sequence[Collective]) -> dict[str, dict[str, int]]:
  """Returns kind -> {"count", "bytes", "sent", "sent_across"}, added up over all runs; a device's."""
  table: dict[str, dict[str, int]] = {}
  for one in collectives:
    row = table.setdefault(one.kind, {"count": 0, "bytes": 0, "sent": 0, "sent_across": 0})
    row["count"] += one.runs
    row["bytes"] += one.runs * one.bytes
    row["sent_across" if one.crosses else "sent"] += one.runs * one.sent
  return dict(sorted(table.items()))
