"""Bytes a compiled program moves between a device's memory and its chip.

Each kernel reads its operands and writes its result once. Of an array that a kernel only slices, the slice counts, and
of one it updates in place, the update: a loop over stacked layers reads its own layer's part. What the compiler keeps
on the chip (a TPU's VMEM, memory space 1) is free.
"""

from ssljax.planning.hlo import Computation, Instruction, Module, Shape
from ssljax.planning.trips import Trips

# Names for data that is there already, and what only steers.
_FREE = {
  "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "call-start",
  "after-all",
  "partition-id", "replica-id", "optimization-barrier", "add-dependency", "domain", "iota", "get-dimension-size",
}  # fmt: skip
_SLICES = ("dynamic-slice", "slice", "slice-start", "gather")
_VIEWS = ("bitcast", "reshape", "copy", "convert")
_ALLOCATIONS = ("AllocateBuffer", "Sharding", "AssumeGatherIndicesInBound")


def count(module: Module, trips: Trips) -> int:
  """Returns the bytes of one run of a program."""
  total = 0
  for name, runs in trips.executed.items():
    computation = module.computations[name]
    total += runs * sum(moved(module, computation, instruction) for instruction in computation)
  return total


def moved(module: Module, computation: Computation, instruction: Instruction) -> int:
  """Returns the bytes that one run of an instruction reads and writes."""
  opcode = instruction.opcode
  if opcode in _FREE or opcode.endswith(("-done", "-update")):
    return 0
  if opcode == "custom-call" and any(f'"{name}"' in instruction.attributes for name in _ALLOCATIONS):
    return 0
  body = module.computations[instruction.called[0]] if opcode == "fusion" else None
  reads = [_read(module, computation, instruction, place, body) for place in range(len(instruction.operands))]
  return sum(reads) + _written(module, computation, instruction, body)


def _read(
  module: Module, computation: Computation, instruction: Instruction, place: int, body: Computation | None
) -> int:
  operand = computation.operand(instruction, place)
  outside = sum(map(_outside, operand.shapes))
  if not outside:
    return 0
  if body is not None:
    return min(outside, _used(module, body, body.parameters[place]))
  if instruction.opcode in _SLICES and place == 0:
    return min(outside, _result(instruction).bytes)
  if instruction.opcode in ("dynamic-update-slice", "scatter") and place == 0:
    return 0
  return outside


def _used(module: Module, body: Computation, value: Instruction) -> int:
  """Returns how many bytes of a value a kernel reads: all, or the parts it takes."""
  total = 0
  for user in body.users.get(value.name, ()):
    place = user.operands.index(value.name)
    if user.opcode in _SLICES and place == 0:
      total += _result(user).bytes
    elif user.opcode == "dynamic-update-slice" and place == 0:
      continue  # in place: what is not updated stays where it is
    elif user.opcode in ("bitcast", "reshape"):
      total += _used(module, body, user)
    elif user.opcode == "fusion":
      inner = module.computations[user.called[0]]
      total += _used(module, inner, inner.parameters[place])
    else:
      return value.bytes
  return total


def _written(module: Module, computation: Computation, instruction: Instruction, body: Computation | None) -> int:
  outside = sum(map(_outside, instruction.shapes))
  if instruction.opcode == "send":  # the host takes it from where it lies
    return 0
  if instruction.opcode in ("dynamic-update-slice", "scatter"):
    return min(outside, computation.operand(instruction, 1 if instruction.opcode != "scatter" else 2).bytes)
  if instruction.opcode in ("copy-start", "slice-start"):
    return _outside(_result(instruction))
  if body is None or not outside:
    return outside
  root = body.root
  roots = [body.operand(root, n) for n in range(len(root.operands))] if root.opcode == "tuple" else [root]
  if len(roots) != len(instruction.shapes):
    return outside
  pairs = zip(roots, instruction.shapes, strict=True)
  return sum(_root(module, body, made) for made, shape in pairs if _outside(shape))


def _root(module: Module, body: Computation, root: Instruction) -> int:
  """Returns the bytes a kernel's result is made of: of an update in place the update."""
  seen = root
  while seen.opcode in _VIEWS:
    seen = body.operand(seen, 0)
  if seen.opcode == "dynamic-update-slice":
    return min(root.bytes, body.operand(seen, 1).bytes)
  if seen.opcode == "fusion" and len(seen.shapes) == 1:
    inner = module.computations[seen.called[0]]
    return min(root.bytes, _root(module, inner, inner.root))
  return root.bytes


def _result(instruction: Instruction) -> Shape:
  """Returns what an instruction makes; one that starts a copy also carries what it copies, before or after."""
  return instruction.shapes[1 if instruction.opcode == "slice-start" else 0]


def _outside(shape: Shape) -> int:
  return shape.bytes if shape.space == 0 else 0
