"""The mesh and who lies where on it: batches over `data` and `fsdp`, state by path rules."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ssljax import tree
from ssljax.errors import UserError
from ssljax.types import Array, PyTree

AXES = ("data", "fsdp", "tensor")
BATCH = PartitionSpec(("data", "fsdp"))  # the example axis of every batch leaf and activation
Rules = Sequence[tuple[str, str]]
STRATEGIES = ("replicate",)


def make_mesh(*, data: int = -1, fsdp: int = 1, tensor: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
  """Returns a mesh `data x fsdp x tensor` over all devices; -1 stands for what is left.

  Raises:
    UserError: the sizes do not multiply to the number of devices.
  """
  devices = list(jax.devices() if devices is None else devices)
  sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
  fixed = int(np.prod([size for size in sizes.values() if size != -1]))
  free = [axis for axis, size in sizes.items() if size == -1]
  if len(free) > 1 or fixed < 1 or len(devices) % fixed or (not free and fixed != len(devices)):
    found = " x ".join(f"{axis}={size}" for axis, size in sizes.items())
    raise UserError(f"mesh: {found} does not fit {len(devices)} devices (one axis may be -1: what is left)")
  shape = [len(devices) // fixed if size == -1 else size for size in sizes.values()]
  return Mesh(np.asarray(devices).reshape(shape), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def batch_devices(mesh: Mesh) -> int:
  """Returns over how many devices the example axis is cut."""
  return mesh.shape["data"] * mesh.shape["fsdp"]


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Returns the one sharding of every batch leaf: axis 0 over `data` and `fsdp`."""
  return NamedSharding(mesh, BATCH)


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of what every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def state_sharding(mesh: Mesh, state: PyTree, rules: Rules = ((".*", "replicate"),)) -> PyTree:
  """Returns a sharding per leaf of the (abstract) state by the first rule that matches its path.

  Raises:
    UserError: a leaf no rule matches, or an unknown strategy.
  """

  def one(name: str, leaf: Array) -> NamedSharding:
    del leaf
    strategy = tree.first_match(rules, name)
    if strategy not in STRATEGIES:
      raise UserError(f"sharding: {name} has strategy {strategy}, expected one of {', '.join(STRATEGIES)}")
    return replicated(mesh)

  return tree.map_named(one, state)


def constrain(x: Array) -> Array:
  """Returns x with axis 0 pinned to the mesh's batch axes; x itself where no mesh is set.

  Without the pin XLA may reshard activations between layers (measured: all-to-alls and five times the memory).
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or "data" not in mesh.axis_names:
    return x
  return jax.lax.with_sharding_constraint(x, BATCH)
