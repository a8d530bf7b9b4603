"""Compiled programs as XLA prints them, read into instructions: just as much as counting needs."""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping

_BITS = {"pred": 8, "token": 0, "opaque": 0}
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+)(?:\.\d+)? \(.*\{$")
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,<=? ]*)\](?:\{([^{}]*)\})?")
_SPACE = re.compile(r"S\((\d+)\)")
_CALLED = re.compile(
  r"\b(?:calls|body|condition|to_apply|async_computation)=%?([\w.\-]+)|branch_computations=\{([^}]*)\}"
)


@dataclasses.dataclass(frozen=True)
class Shape:
  """An array.

  Attributes:
    dtype: as XLA writes it: "f32", "bf16", "s32".
    dims: its sizes.
    space: the memory it lies in, 0 for the device's main memory.
  """

  dtype: str
  dims: tuple[int, ...]
  space: int = 0

  @property
  def count(self) -> int:
    """Returns the numbers in it."""
    return math.prod(self.dims)

  @property
  def bytes(self) -> int:
    """Returns its bytes, without what a layout pads."""
    found = re.search(r"\d+", self.dtype)
    return self.count * _BITS.get(self.dtype, int(found[0]) if found else 0) // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of a computation.

  Attributes:
    name: unique in its computation.
    opcode: such as "fusion", "all-gather-start".
    shapes: the arrays of the result, those of a nested tuple flattened.
    operands: names of instructions in the same computation.
    attributes: the rest of the line.
  """

  name: str
  opcode: str
  shapes: tuple[Shape, ...]
  operands: tuple[str, ...]
  attributes: str

  @property
  def bytes(self) -> int:
    """Returns the bytes of the result."""
    return sum(shape.bytes for shape in self.shapes)

  @functools.cached_property
  def called(self) -> tuple[str, ...]:
    """Returns the computations it names: a fusion's, a loop's body and condition, a reduction's."""
    found = (one or many for one, many in _CALLED.findall(self.attributes))
    return tuple(name.strip().removeprefix("%") for names in found for name in names.split(","))

  def named(self, key: str) -> str | None:
    """Returns the computation that the attribute `key` names."""
    found = re.search(rf"\b{key}=%?([\w.\-]+)", self.attributes)
    return found and found[1]


@dataclasses.dataclass(frozen=True)
class Computation:
  """Instructions by name, in their order; `root` is the result, `parameters` the arguments in theirs."""

  name: str
  instructions: Mapping[str, Instruction]
  root: Instruction

  def __iter__(self) -> Iterator[Instruction]:
    return iter(self.instructions.values())

  @functools.cached_property
  def parameters(self) -> tuple[Instruction, ...]:
    """Returns the arguments in order."""
    found = {int(i.operands[0]): i for i in self if i.opcode == "parameter"}
    return tuple(found[n] for n in sorted(found))

  @functools.cached_property
  def users(self) -> Mapping[str, tuple[Instruction, ...]]:
    """Returns who reads each instruction."""
    users: dict[str, list[Instruction]] = {}
    for instruction in self:
      for name in dict.fromkeys(instruction.operands):
        users.setdefault(name, []).append(instruction)
    return {name: tuple(found) for name, found in users.items()}

  def operand(self, instruction: Instruction, number: int) -> Instruction:
    """Returns the instruction that makes operand `number`."""
    return self.instructions[instruction.operands[number]]


@dataclasses.dataclass(frozen=True)
class Module:
  """A program: its computations by name, and the one that runs."""

  computations: Mapping[str, Computation]
  entry: Computation


def parse(text: str) -> Module:
  """Returns the program of `compiled.as_text()`."""
  computations: dict[str, Computation] = {}
  entry, name, lines = None, None, []
  for line in text.splitlines():
    header = _HEADER.match(line) if name is None and not line.startswith(" ") else None
    if header:
      name, lines = line.removeprefix("ENTRY ").split(" ", 1)[0].removeprefix("%"), []
      entry = name if header[1] else entry
    elif line.startswith("}") and name is not None:  # a TPU's other cores: `}, execution_thread="sparsecore"`
      computations[name] = _computation(name, lines)
      name = None
    elif name is not None:
      lines.append(line)
  assert entry is not None, "a program has an entry"
  return Module(computations, computations[entry])


def _computation(name: str, lines: list[str]) -> Computation:
  found = [_instruction(line.strip()) for line in lines if " = " in line]
  roots = [i for i, line in zip(found, (line for line in lines if " = " in line), strict=True) if "ROOT " in line[:9]]
  return Computation(name, {i.name: i for i in found}, roots[0] if roots else found[-1])


def _instruction(line: str) -> Instruction:
  name, rest = line.removeprefix("ROOT ").split(" = ", 1)
  end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
  shape, rest = rest[:end], rest[end:].lstrip()
  opcode, _, rest = rest.partition("(")
  end = _closing("(" + rest, 0) - 1
  operands = re.sub(r"/\*.*?\*/", "", rest[:end])
  names = re.findall(r"%([\w.\-]+)", operands) or ([operands] if opcode in ("parameter", "constant") else [])
  return Instruction(name.removeprefix("%"), opcode.strip(), shapes(shape), tuple(names), rest[end + 1 :])


def shapes(text: str) -> tuple[Shape, ...]:
  """Returns the arrays of a type as XLA prints it: `f32[2,3]{1,0}` or `(bf16[8]{0:T(128)S(1)}, u32[])`."""
  found = []
  for dtype, dims, layout in _ARRAY.findall(re.sub(r"/\*.*?\*/", "", text)):
    space = _SPACE.search(layout)
    sizes = tuple(int(size.strip(" <=?")) for size in dims.split(",") if size.strip(" <=?"))
    found.append(Shape(dtype, sizes, int(space[1]) if space else 0))
  return tuple(found)


def _closing(text: str, start: int) -> int:
  """Returns the place of the bracket that closes the one at `start`."""
  depth = 0
  for place in range(start, len(text)):
    depth += (text[place] == "(") - (text[place] == ")")
    if not depth:
      return place
  raise ValueError(f"no closing bracket in {text[:80]}")
