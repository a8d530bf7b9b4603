"""Which pairs of two batches a device computes, and when: the ways to see every pair without the matrix of them all.

A loss over pairs has rows (its anchors) and columns (what they are compared with). Rows stay on their device; the
columns come to them a block at a time, and what a step makes of a block is forgotten before the next one comes. What
is collected for a column (its gradient, its part of a logsumexp) is the block's luggage. Under a mesh the ways run in
`jax.shard_map` over the axes of `sharding.BATCH`; over any other axis of the mesh arrays are replicated and each
device does the same. Without a mesh every way is `Whole`: one device, in chunks.
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from ssljax import sharding
from ssljax.errors import UserError, nearest
from ssljax.types import Array, PyTree

Pairs = Literal["dense", "gather", "ring"]
NAMES = get_args(Pairs)
CHUNK = 1024  # columns of a block: with as many rows, logits of 4 MB
Step = Callable[[PyTree, PyTree, PyTree, Array], tuple[PyTree, PyTree]]
Start = Callable[[PyTree], PyTree]


def no_luggage(columns: PyTree) -> tuple:
  """Returns (): nothing is collected for the columns."""
  del columns
  return ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Way(abc.ABC):
  """One way for the columns to come to the rows.

  Attributes:
    chunk: most columns a block has.
    axes: mesh axes over which rows are cut, empty without a mesh.
    devices: into how many parts they cut.
  """

  chunk: int
  axes: tuple[str, ...] = ()
  devices: int = 1
  cuts_columns: ClassVar[bool] = True
  """Whether a device brings only its own part of the columns."""

  def run(self, body: Callable[[PyTree, PyTree], Any], rows: PyTree, columns: PyTree) -> tuple[PyTree, PyTree]:
    """Returns body(rows, columns) -> (for rows, for columns) with the arrays of one device, put together again."""
    if not self.axes:
      return body(rows, columns)
    cut = PartitionSpec(self.axes)
    specs = (cut, cut if self.cuts_columns else PartitionSpec())
    return jax.shard_map(body, in_specs=specs, out_specs=specs)(rows, columns)

  def number(self) -> Array | int:
    """Returns which of the devices this is, i32[]."""
    return jax.lax.axis_index(self.axes) if self.axes else 0

  def places(self, count: int) -> Array:
    """Returns the global numbers i32[count] of the rows of this device, which has `count`."""
    return self.number() * count + jnp.arange(count)

  @abc.abstractmethod
  def walk(self, step: Step, carry: PyTree, columns: PyTree, start: Start = no_luggage) -> tuple[PyTree, PyTree]:
    """Returns what the rows and the columns have collected after every row of this device met every column.

    Args:
      step: (carry, block of columns, their luggage, their global numbers i32[c]) -> (carry, luggage).
      carry: what the rows start with.
      columns: arrays [m,...] of this device.
      start: columns -> their first luggage, arrays [m,...].
    """

  def join_sums(self, luggage: Array) -> Array:
    """Returns the luggage of this device's columns, summed over the devices the columns were on."""
    return luggage

  def join_logs(self, luggage: Array) -> Array:
    """Returns the same for logarithms of sums."""
    return luggage


class Whole(Way):
  """All columns lie on every device already."""

  cuts_columns = False

  def walk(self, step: Step, carry: PyTree, columns: PyTree, start: Start = no_luggage) -> tuple[PyTree, PyTree]:
    """Returns what rows and columns have collected; the luggage holds what came from the rows of this device alone."""
    luggage = start(columns)
    if self.axes:
      luggage = jax.lax.pcast(luggage, self.axes, to="varying")
    return _in_chunks(self.chunk, step, carry, columns, luggage, first=0)

  def join_sums(self, luggage: Array) -> Array:
    """Returns the sum over the devices, on all of them."""
    return jax.lax.psum(luggage, self.axes) if self.axes else luggage


class Gather(Way):
  """Each device fetches all columns at once: memory for them, one collective."""

  def walk(self, step: Step, carry: PyTree, columns: PyTree, start: Start = no_luggage) -> tuple[PyTree, PyTree]:
    """Returns the same, and the luggage of all columns, with what came from the rows of this device alone."""
    columns = jax.lax.all_gather(columns, self.axes, tiled=True)
    return _in_chunks(self.chunk, step, carry, columns, start(columns), first=0)

  def join_sums(self, luggage: Array) -> Array:
    """Returns the rows of this device of the sum over the devices."""
    return jax.lax.psum_scatter(luggage, self.axes, tiled=True)

  def join_logs(self, luggage: Array) -> Array:
    """Returns the rows of this device of the logarithm of the summed exponentials."""
    top = jax.lax.pmax(luggage, self.axes)
    count = len(luggage) // self.devices
    own = jax.lax.dynamic_slice_in_dim(top, self.number() * count, count)
    return own + jnp.log(self.join_sums(jnp.exp(luggage - top)))


class Ring(Way):
  """The columns of each device travel round all of them, with their luggage, and come home."""

  def walk(self, step: Step, carry: PyTree, columns: PyTree, start: Start = no_luggage) -> tuple[PyTree, PyTree]:
    """Returns the same, and the luggage of this device's columns, complete."""
    here, count = self.number(), _count(columns)

    def visit(turn: Array | int, carry: PyTree, columns: PyTree, luggage: PyTree) -> tuple[PyTree, PyTree]:
      owner = (here - turn) % self.devices
      return _in_chunks(self.chunk, step, carry, columns, luggage, first=owner * count)

    def turn_round(turn: Array, state: tuple[PyTree, PyTree, PyTree]) -> tuple[PyTree, PyTree, PyTree]:
      carry, columns, luggage = state
      coming = self._send(columns)  # does not wait for this turn's products
      carry, luggage = visit(turn, carry, columns, luggage)
      return carry, coming, self._send(luggage)

    last = self.devices - 1
    carry, columns, luggage = jax.lax.fori_loop(0, last, turn_round, (carry, columns, start(columns)))
    carry, luggage = visit(last, carry, columns, luggage)
    return carry, self._send(luggage)

  def _send(self, arrays: PyTree) -> PyTree:
    """Returns the arrays of the device before this one."""
    if self.devices == 1:
      return arrays
    return jax.lax.ppermute(arrays, self.axes, [(i, (i + 1) % self.devices) for i in range(self.devices)])


def choose(pairs: Pairs, *, chunk: int, rows: int, columns: int, gather: type[Way] = Gather) -> Way:
  """Returns the way `pairs` names, on the mesh that is set.

  Args:
    pairs: "gather" or "ring".
    chunk: most columns a block has.
    rows: number of anchors on all devices.
    columns: number of what they are compared with.
    gather: what "gather" is: `Whole` for columns that every device holds anyway.

  Raises:
    UserError: an unknown name, a chunk below 1, rows or columns that do not divide over the devices.
  """
  check_pairs(pairs)
  if chunk < 1:
    raise UserError(f"chunk {chunk}, expected at least 1 column")
  mesh = jax.sharding.get_abstract_mesh()
  axes = tuple(axis for axis in sharding.BATCH[0] if axis in mesh.axis_names)
  if not axes:
    return Whole(chunk=chunk)
  devices = 1
  for axis in axes:
    devices *= mesh.shape[axis]
  way = {"gather": gather, "ring": Ring}[pairs](chunk=chunk, axes=axes, devices=devices)
  for name, count in ({"rows": rows} | ({"columns": columns} if way.cuts_columns else {})).items():
    if count % devices:
      raise UserError(f'pairs "{pairs}": {count} {name} on {devices} devices, expected a multiple of {devices}')
  return way


def check_pairs(pairs: str, *, where: str = "pairs") -> None:
  """Raises UserError where `pairs` is none of dense, gather, ring; the line begins with `where`."""
  if pairs not in NAMES:
    raise UserError(f"{where} {nearest(pairs, NAMES)}")


def _count(columns: PyTree) -> int:
  return len(jax.tree.leaves(columns)[0])


def _in_chunks(
  chunk: int, step: Step, carry: PyTree, columns: PyTree, luggage: PyTree, *, first: Array | int
) -> tuple[PyTree, PyTree]:
  """Returns carry and luggage after steps over blocks of at most `chunk` columns, the first of them number `first`."""
  visit = lambda carry, block: step(carry, *block)
  count = _count(columns)
  everything = (columns, luggage, first + jnp.arange(count))
  if count <= chunk:
    return visit(carry, everything)
  even = count - count % chunk
  blocks = jax.tree.map(lambda x: x[:even].reshape(-1, chunk, *x.shape[1:]), everything)
  carry, luggage = jax.lax.scan(visit, carry, blocks)
  luggage = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), luggage)
  if even == count:
    return carry, luggage
  carry, rest = visit(carry, jax.tree.map(lambda x: x[even:], everything))
  return carry, jax.tree.map(lambda *parts: jnp.concatenate(parts), luggage, rest)
