"""Floating-point operations of a compiled program: its matrix products and convolutions, loops by their turns.

XLA's own count takes a loop's body once. Elementwise work is left out, as in `flops`.
"""

import json
import math
import re
from typing import Literal, NamedTuple

import numpy as np

from ssljax.planning.hlo import Computation, Instruction, Module, Shape
from ssljax.planning.trips import Trips

Operands = Literal["bfloat16", "float32"]
# Products of rounded parts that make one product of float32 operands (jax's Precision and dot algorithms).
_PASSES = {"high": 3, "highest": 6, "bf16_bf16_f32_x3": 3, "bf16_bf16_f32_x6": 6, "bf16_bf16_f32_x9": 9}


class Products(NamedTuple):
  """What products do in one run of a program.

  Attributes:
    operations: multiply-adds times two.
    work: the same by what the operands are; those in several passes count as often.
    opaque: names of kernels whose operations cannot be seen, such as hand-written ones.
  """

  operations: int
  work: dict[Operands, int]
  opaque: tuple[str, ...]


def count(module: Module, trips: Trips) -> Products:
  """Returns the products of a program."""
  total, work, opaque = 0, {"bfloat16": 0, "float32": 0}, set()
  for name, runs in (trips.executed + trips.fused).items():
    computation = module.computations[name]
    for instruction in computation:
      operations = runs * operations_of(computation, instruction)
      total += operations
      work[_operands(computation, instruction)] += operations * _passes(instruction) if operations else 0
      if _target(instruction) in ("tpu_custom_call", "__gpu$xla.gpu.triton"):
        opaque.add(instruction.name)
  return Products(total, work, tuple(sorted(opaque)))


def operations_of(computation: Computation, instruction: Instruction) -> int:
  """Returns the floating-point operations of one run of an instruction itself; 0 for all but products."""
  if instruction.opcode == "dot":
    lhs = computation.operand(instruction, 0).shapes[0]
    return (
      2 * instruction.shapes[0].count * math.prod(lhs.dims[i] for i in _numbers(instruction, "lhs_contracting_dims"))
    )
  if instruction.opcode == "convolution":
    parts = [computation.operand(instruction, n).shapes[0] for n in range(2)]
    return _convolution(instruction.attributes, *parts, instruction.shapes[0])
  target = _target(instruction)
  if "gemm" in target or "matmul" in target:
    return _library_product(computation, instruction)
  if target.startswith("__cudnn$conv"):
    return _library_convolution(computation, instruction, target)
  return 0


def _target(instruction: Instruction) -> str:
  if instruction.opcode != "custom-call":
    return ""
  found = re.search(r'custom_call_target="([^"]*)"', instruction.attributes)
  return found[1] if found else ""


def _numbers(instruction: Instruction, key: str) -> list[int]:
  found = re.search(rf"\b{key}={{([\d,]*)}}", instruction.attributes)
  return [int(n) for n in found[1].split(",") if n] if found else []


def _operands(computation: Computation, instruction: Instruction) -> Operands:
  if not instruction.operands or instruction.operands[0] not in computation.instructions:
    return "bfloat16"
  dtype = computation.operand(instruction, 0).shapes[:1]
  rounded = "algorithm=dot_bf16_bf16_f32," in f"{instruction.attributes},"
  return "float32" if dtype and dtype[0].dtype in ("f32", "f64") and not rounded else "bfloat16"


def _passes(instruction: Instruction) -> int:
  found = re.search(r"operand_precision={(\w+)", instruction.attributes) or re.search(
    r"algorithm=dot_(\w+)", instruction.attributes
  )
  return _PASSES.get(found[1], 1) if found else 1


def _convolution(attributes: str, lhs: Shape, rhs: Shape, out: Shape) -> int:
  """Returns 2 x channels in x channels out x batch x (pairs of window and output that meet a real pixel).

  A TPU does every product as a convolution, batches as windows over a stretched input; pixels that padding and
  stretching make up are no work.
  """
  labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", attributes)
  assert labels is not None, attributes
  size = lambda text, shape, letter: shape.dims[text.index(letter)]
  groups = re.search(r"batch_group_count=(\d+)", attributes)
  outer = size(labels[2], rhs, "i") * size(labels[2], rhs, "o") * size(labels[1], lhs, "b")
  meets = 1
  for number, digit in enumerate(sorted(set(labels[1]) - {"b", "f"})):
    places = (size(labels[1], lhs, digit), size(labels[2], rhs, digit), size(labels[3], out, digit))
    meets *= _meetings(*places, **_window(attributes, number))
  return 2 * outer * meets // (int(groups[1]) if groups else 1)


def _window(attributes: str, number: int) -> dict[str, int]:
  """Returns stride, pad, stretch and gap of a spatial dimension."""
  window = re.search(r"window={([^}]*)}", attributes)
  given = dict(part.split("=") for part in window[1].split()) if window else {}
  value = lambda key, default: given[key].split("x")[number] if key in given else default
  return {
    "stride": int(value("stride", 1)),
    "pad": int(str(value("pad", "0_0")).split("_")[0]),
    "stretch": int(value("lhs_dilate", 1)),
    "gap": int(value("rhs_dilate", 1)),
  }


def _meetings(length: int, window: int, out: int, *, stride: int, pad: int, stretch: int, gap: int) -> int:
  place = np.arange(out)[:, None] * stride + np.arange(window) * gap - pad
  return int(((place >= 0) & (place <= (length - 1) * stretch) & (place % stretch == 0)).sum())


def _library_product(computation: Computation, instruction: Instruction) -> int:
  found = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', instruction.attributes)
  lhs = computation.operand(instruction, 0).shapes[0]
  contracted = [int(n) for n in json.loads(f"[{found[1]}]")] if found else []
  return 2 * instruction.shapes[0].count * math.prod(lhs.dims[i] for i in contracted)


def _library_convolution(computation: Computation, instruction: Instruction, target: str) -> int:
  """Returns the operations of a forward convolution or of one of its two gradients, which do the same products."""
  a, b = (computation.operand(instruction, n).shapes[0] for n in range(2))
  out = instruction.shapes[0]
  order = (out, b, a) if "BackwardInput" in target else (a, out, b) if "BackwardFilter" in target else (a, b, out)
  return _convolution(instruction.attributes, *order)
