"""Floating-point operations of a jitted function, counted from its jaxpr, and the peak rate of known devices (`chips`).

XLA's own cost analysis counts the body of a scan once; a model with scanned layers would look a depth times too cheap.
"""

import math
from collections.abc import Callable
from typing import Any

import jax

from ssljax import chips


def count(function: Callable[..., Any], *arguments: Any) -> int:
  """Returns the multiply-adds (times two) of all matrix products and convolutions of function(*arguments).

  Arguments may be ShapeDtypeStructs. Elementwise work is left out, as in the usual model-FLOPs figure, and so is what
  nothing uses: no compiler keeps it. Recomputation by remat is counted where the backward pass is traced. A window over
  a picture's border counts as any other.
  """
  return count_jaxpr(jax.make_jaxpr(function)(*arguments))


def count_jaxpr(closed: Any) -> int:
  """Returns the same for a closed jaxpr, such as the one of `jax.jit(f).trace(*arguments)`."""
  return _count(closed.jaxpr)


def peak(device: jax.Device) -> float | None:
  """Returns the bfloat16 peak FLOP/s of a device, None where it is not known (CPUs)."""
  chip = chips.find(device.device_kind)
  return chip and chip.bfloat16


def _count(jaxpr: Any) -> int:
  return sum(_count_equation(equation) for equation in _used(jaxpr))


def _used(jaxpr: Any) -> list[Any]:
  """Returns the equations that results or effects depend on: a custom gradient computes all of its parts."""
  needed, kept = set(filter(_is_variable, jaxpr.outvars)), []
  for equation in reversed(jaxpr.eqns):
    if equation.effects or needed.intersection(equation.outvars):
      needed.update(filter(_is_variable, equation.invars))
      kept.append(equation)
  return kept


def _is_variable(atom: Any) -> bool:
  return not hasattr(atom, "val")  # a literal has one


def _count_equation(equation: Any) -> int:
  name, shape = equation.primitive.name, lambda i: equation.invars[i].aval.shape
  if name == "dot_general":
    (contract, _), _ = equation.params["dimension_numbers"]
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(shape(0)[d] for d in contract)
  if name == "conv_general_dilated":
    kernel, numbers = shape(1), equation.params["dimension_numbers"]
    taps = math.prod(kernel) // kernel[numbers.rhs_spec[0]]  # input channels of a group times window
    # A window stretched by lhs_dilation (gradients of strided convolutions) meets a picture that is mostly zeros.
    sparsity = math.prod(equation.params["lhs_dilation"])
    return 2 * math.prod(equation.outvars[0].aval.shape) * taps // sparsity
  inner = sum(_count(body) for body in _bodies(equation.params))
  if name == "shard_map":  # its body is one device's
    mesh, parameters = equation.params["mesh"], equation.params
    axes = parameters.get("newly_manual_axes", parameters.get("manual_axes", ()))  # the name changed between releases
    return inner * math.prod(mesh.shape[axis] for axis in axes)
  return inner * equation.params["length"] if name == "scan" else inner


def _bodies(parameters: dict[str, Any]) -> list[Any]:
  values = [v for value in parameters.values() for v in (value if isinstance(value, tuple | list) else (value,))]
  closed = [value.jaxpr for value in values if hasattr(value, "jaxpr")]
  return closed + [value for value in values if hasattr(value, "eqns") and not hasattr(value, "jaxpr")]
