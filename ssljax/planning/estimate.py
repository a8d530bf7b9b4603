"""What a compiled step needs and costs on one device, put together from all that can be known without running it."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from ssljax import chips, flops, tree
from ssljax.planning import collectives, hlo, products, traffic, trips
from ssljax.planning.collectives import Collective
from ssljax.planning.products import Products
from ssljax.planning.roofline import Roofline, roofline
from ssljax.types import Batch, Objective, PyTree, TrainState

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50}
_USED = re.compile(r"[Uu]sed ([\d.]+)([KMGTP]?)i?B? of ([\d.]+)([KMGTP]?)i?B? hbm|\(([\d.]+)([KMGTP]?)i?B?\) exceeds")
_NAMES = ("get-tuple-element", "bitcast", "tuple")  # for what is there already


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
  """Bytes of one device.

  Attributes:
    arguments: state and batch, as they are laid out.
    temporaries: activations and all else the step makes and throws away.
    results: what the step returns and does not write over its arguments.
    code: the program.
    peak: the most that is in use at once, by XLA's own account.
  """

  arguments: int
  temporaries: int
  results: int
  code: int
  peak: int

  @property
  def total(self) -> int:
    """Returns what the device has to have: everything is allocated for the whole step."""
    return self.arguments + self.temporaries + self.results + self.code


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
  """One step on one device, where nothing else is said.

  Attributes:
    fits: whether the device has the memory.
    limit: bytes of memory that programs may use; None where it is not known.
    needed: bytes the step needs; where the compiler refused it, what it said, None if it did not.
    memory: where the bytes go; None where the compiler refused the step.
    products: what the compiled step multiplies.
    moved: bytes between memory and chip.
    collectives: what is sent.
    unknown_loops: loops whose turns could not be found, counted once.
    recomputed: kernels the compiler runs again by itself, because memory is short.
    roofline: seconds; None where the chip is not in the table.
  """

  fits: bool
  limit: int | None
  needed: int | None
  memory: Memory | None = None
  products: Products | None = None
  moved: int | None = None
  collectives: tuple[Collective, ...] = ()
  unknown_loops: int = 0
  recomputed: int = 0
  roofline: Roofline | None = None


def compile_and_estimate(lowered: Any, devices: Sequence[Any], *, limit: int | None) -> Estimate:
  """Returns the estimate of a lowered step; that it does not fit is an answer too.

  Args:
    lowered: a `jax.stages.Lowered`.
    devices: what it is compiled for, in the mesh's order.
    limit: bytes a device has, where the chip is not in the table.
  """
  chip = chips.find(devices[0].device_kind)
  limit = chip.memory if chip else limit
  try:
    compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    return Estimate(fits=False, limit=limit, needed=bytes_wanted(str(error)))
  return _estimate(compiled, devices, chip, limit)


def bytes_wanted(message: str) -> int | None:
  """Returns the bytes that a compiler's refusal says a program would use, None where it does not say."""
  found = [match for match in _USED.findall(message)]
  sizes = [float(a or c) * _UNITS[b or d] for a, b, _, _, c, d in found]
  return int(max(sizes)) if sizes else None


def _estimate(compiled: Any, devices: Sequence[Any], chip: chips.Chip | None, limit: int | None) -> Estimate:
  memory = measured(compiled.memory_analysis(), tpu=devices[0].platform == "tpu")
  module = hlo.parse(compiled.as_text())
  turns = trips.count(module)
  multiplied, moved = products.count(module, turns), traffic.count(module, turns)
  sent = collectives.find(module, turns, islands(devices))
  within, across = (sum(one.runs * one.sent for one in sent if one.crosses == far) for far in (False, True))
  return Estimate(
    fits=limit is None or memory.total <= limit,
    limit=limit,
    needed=memory.total,
    memory=memory,
    products=multiplied,
    moved=moved,
    collectives=tuple(sent),
    unknown_loops=len(turns.unknown),
    recomputed=recomputed(module, turns),
    roofline=chip and roofline(chip, work=multiplied.work, moved=moved, sent=within, sent_across=across),
  )


def recomputed(module: hlo.Module, turns: trips.Trips) -> int:
  """Returns how many kernels are copies that XLA made to free memory in between; it calls them x.remat."""
  kernels = (i for name in turns.executed for i in module.computations[name] if i.opcode not in _NAMES)
  return sum(bool(re.search(r"\.remat\d*(\.|$)", kernel.name)) for kernel in kernels)


def measured(stats: Any, *, tpu: bool) -> Memory:
  """Returns the memory of a program by XLA's account.

  Of what a TPU's compiler calls temporaries at most what it has in use at once counts: that is what it allocates, and
  what it compares with the chip when it refuses a program. The other figure may be larger than the chip's memory for a
  program it takes.

  Args:
    stats: `compiled.memory_analysis()`.
    tpu: whether the program is one for TPUs.
  """
  arguments, temporaries = stats.argument_size_in_bytes, stats.temp_size_in_bytes
  peak = getattr(stats, "peak_memory_in_bytes", 0)
  return Memory(
    arguments=arguments,
    temporaries=min(temporaries, max(0, peak - arguments)) if tpu and peak else temporaries,
    results=max(0, stats.output_size_in_bytes - stats.alias_size_in_bytes),
    code=stats.generated_code_size_in_bytes,
    peak=peak,
  )


def islands(devices: Sequence[Any]) -> list[int]:
  """Returns for each device the number of what a fast network joins it to: its TPU slice, or its host."""
  tpu = devices[0].platform == "tpu"
  return [(getattr(d, "slice_index", 0) or 0) if tpu else d.process_index for d in devices]


def state_bytes(state: TrainState) -> dict[str, int]:
  """Returns "parameters", "optimizer", "objective" -> bytes a device holds of the sharded abstract state, unpadded."""
  parts = {"parameters": state.params, "optimizer": state.opt_state, "objective": state.objective_state}
  return {name: sum(map(_held, jax.tree.leaves(part))) for name, part in parts.items()}


def _held(leaf: Any) -> int:
  shape = leaf.sharding.shard_shape(leaf.shape)
  return math.prod(shape) * (8 if tree.is_key_array(leaf) else leaf.dtype.itemsize)


def model_operations(objective: Objective, state: TrainState, batch: Batch) -> int:
  """Returns the floating-point operations of loss and gradient of the global batch: what the method asks for.

  The objective must not recompute (see `variants.plain`); optimiser and augmentation are left out.
  """

  def loss(params: PyTree, objective_state: PyTree, batch: Batch) -> tuple[Any, Any]:
    out = objective.loss(params, objective_state, batch, rng=jax.random.key(0), step=jax.numpy.int32(0))
    return out.loss, out

  abstract: Mapping[str, Any] = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)
  parts = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (state.params, state.objective_state))
  return flops.count(jax.value_and_grad(loss, has_aux=True), *parts, abstract)
