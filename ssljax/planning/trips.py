"""How often a compiled program runs each of its computations: loop bodies count their turns."""

import re
from collections import Counter
from typing import NamedTuple

from ssljax.planning.hlo import Computation, Instruction, Module

_KNOWN = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_THROUGH = ("copy", "bitcast", "convert", "copy-start", "copy-done", "optimization-barrier")


class Trips(NamedTuple):
  """How often computations run in one run of the program.

  Attributes:
    executed: name -> runs of computations whose instructions are kernels of their own: entry, loops, branches, calls.
    fused: name -> runs of computations inside of one kernel: of fusions and asynchronous wrappers.
    unknown: loops whose turns could not be found; they count once.
  """

  executed: Counter[str]
  fused: Counter[str]
  unknown: tuple[str, ...]


def count(module: Module) -> Trips:
  """Returns the trips of a program. Reductions' and sorts' computations are no part: they have no work of interest."""
  trips = Trips(Counter(), Counter(), ())
  unknown: list[str] = []

  def visit(computation: Computation, runs: int, into: Counter[str]) -> None:
    into[computation.name] += runs
    for instruction in computation:
      turns = 1
      if instruction.opcode == "while":
        found = turns_of(module, computation, instruction)
        unknown.extend([instruction.name] if found is None else [])
        turns = 1 if found is None else found
      for name in _parts(instruction):
        wrapped = into is trips.fused or instruction.opcode in ("fusion", "async-start", "custom-call")
        visit(module.computations[name], runs * turns, trips.fused if wrapped else trips.executed)

  visit(module.entry, 1, trips.executed)
  return trips._replace(unknown=tuple(unknown))


def _parts(instruction: Instruction) -> tuple[str, ...]:
  if instruction.opcode == "while":
    return (instruction.named("body"),) if instruction.named("body") else ()
  if instruction.opcode in ("fusion", "call", "call-start", "conditional", "async-start", "custom-call"):
    return instruction.called
  return ()


def turns_of(module: Module, computation: Computation, loop: Instruction) -> int | None:
  """Returns the turns of a loop: as XLA noted them, or from a counter that goes from a constant to a constant.

  None where neither says.
  """
  known = _KNOWN.search(loop.attributes)
  if known:
    return int(known[1])
  condition, body = (module.computations[loop.named(key) or ""] for key in ("condition", "body"))
  bound = _bound(condition)
  if bound is None:
    return None
  place, limit = bound
  start = _element(computation, computation.operand(loop, 0), place)
  first = 0 if start is None else start
  step = _step(body, place)
  return max(0, -(-(limit - first) // step))


def _bound(condition: Computation) -> tuple[int, int] | None:
  """Returns (place of the counter in the loop's state, what it stays below)."""
  constants = [value for i in condition if (value := _constant(condition, i)) is not None and i.opcode == "constant"]
  places = [int(found[1]) for i in condition if (found := re.search(r"\bindex=(\d+)", i.attributes))]
  if len(constants) == 1 and len(places) == 1 and "direction=LE" not in condition.root.attributes:
    return places[0], constants[0]
  return None


def _constant(computation: Computation, instruction: Instruction) -> int | None:
  """Returns the integer an instruction is, seen through copies; None where it is none."""
  while instruction.opcode in _THROUGH:
    instruction = computation.operand(instruction, 0)
  text = instruction.operands[0] if instruction.opcode == "constant" and instruction.operands else ""
  return int(text) if re.fullmatch(r"-?\d+", text) else None


def _element(computation: Computation, state: Instruction, place: int) -> int | None:
  while state.opcode in _THROUGH:
    state = computation.operand(state, 0)
  return _constant(computation, computation.operand(state, place)) if state.opcode == "tuple" else None


def _step(body: Computation, place: int) -> int:
  """Returns what a turn adds to the counter, 1 where it cannot be seen."""
  if body.root.opcode != "tuple":
    return 1
  added = body.operand(body.root, place)
  while added.opcode in _THROUGH:
    added = body.operand(added, 0)
  if added.opcode != "add":
    return 1
  found = [_constant(body, body.operand(added, n)) for n in range(2)]
  return next((value for value in found if value), 1)
