"""The mesh and who lies where on it: batches over `slice`, `data` and `fsdp`, state by path rules."""

import math
import re
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from ssljax import tree
from ssljax.errors import UserError, nearest
from ssljax.types import Array, PyTree

AXES = ("slice", "data", "fsdp", "tensor")
BATCH_AXES = ("slice", "data", "fsdp")
BATCH = PartitionSpec(BATCH_AXES)  # the example axis of every batch leaf and activation
Rules = Sequence[tuple[str, str]]
STRATEGIES = ("replicate", "fsdp", "tensor", "fsdp+tensor")

# Attention and MLP cut over `tensor` (Shoeybi et al., Megatron-LM, 2019, arXiv 1909.08053): the first product of each
# by its outputs (heads, hidden numbers), the second by its inputs, so that one sum over devices ends each branch.
_OUTPUTS = r"(attn/qkv|attn_pool/(q|kv)|attention/(query|key|value)|mlp/(fc1|wi_0|wi_1))/kernel$|mlp/fc1/bias$"
_INPUTS = r"(attn(_pool)?/proj|attention/out|mlp/(fc2|wo))/kernel$"


def make_mesh(
  *, slice: int = 1, data: int = -1, fsdp: int = 1, tensor: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """Returns a mesh `slice x data x fsdp x tensor` over all devices; -1 stands for what is left.

  Devices that are neighbours in the network are neighbours in `tensor`, then `fsdp`; only `slice` crosses slices.

  Raises:
    UserError: the sizes do not multiply to the number of devices.
  """
  devices = list(jax.devices() if devices is None else devices)
  shape = _sizes({"slice": slice, "data": data, "fsdp": fsdp, "tensor": tensor}, len(devices))
  found = len({getattr(device, "slice_index", 0) for device in devices})
  if found > 1 and shape[0] not in (1, found):
    raise UserError(f"mesh: slice={shape[0]}, expected {found}, the slices there are")
  if shape[0] == found > 1:
    placed = mesh_utils.create_hybrid_device_mesh((1, *shape[1:]), (found, 1, 1, 1), devices)
  elif devices[0].platform == "tpu" and found == 1:
    placed = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
  else:  # by host, then by device
    placed = np.asarray(devices).reshape(shape)
  return Mesh(placed, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _sizes(sizes: dict[str, int], devices: int) -> tuple[int, ...]:
  fixed = math.prod(size for size in sizes.values() if size != -1)
  free = [axis for axis, size in sizes.items() if size == -1]
  if len(free) > 1 or fixed < 1 or devices % fixed or (not free and fixed != devices):
    found = " x ".join(f"{axis}={size}" for axis, size in sizes.items() if size != 1) or "all axes 1"
    fits = ", ".join(str(n) for n in range(1, devices + 1) if devices % n == 0)
    raise UserError(
      f"mesh: {found} does not fit {devices} devices, expected sizes that multiply to {devices}, each one of {fits} "
      "(one axis may be -1: what is left)"
    )
  return tuple(devices // fixed if size == -1 else size for size in sizes.values())


def batch_devices(mesh: Mesh | AbstractMesh) -> int:
  """Returns over how many devices the example axis is cut."""
  return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Returns the one sharding of every batch leaf: axis 0 over `slice`, `data` and `fsdp`."""
  return NamedSharding(mesh, BATCH)


def reader(mesh: Mesh) -> tuple[int, int]:
  """Returns (number of the part of a batch that this process reads, number of parts).

  Processes whose devices hold the same examples (`tensor` across machines) read the same part.
  """
  held: dict[int, set[int]] = {}
  for device, index in batch_sharding(mesh).devices_indices_map((batch_devices(mesh),)).items():
    held.setdefault(device.process_index, set()).add(index[0].start or 0)
  parts = sorted({tuple(sorted(rows)) for rows in held.values()})
  return parts.index(tuple(sorted(held[jax.process_index()]))), len(parts)


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of what every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def state_sharding(
  mesh: Mesh, state: PyTree, rules: Rules = ((".*", "fsdp+tensor"),), *, fsdp_min_size: int = 2**14
) -> PyTree:
  """Returns a sharding per leaf of the (abstract) state by the first rule that matches its path.

  Strategies:
    replicate: whole on every device.
    fsdp: the largest axis that `fsdp` divides is cut over it, in leaves of at least `fsdp_min_size` numbers.
    tensor: the products of attention and MLP are cut over `tensor` by their parameter's name, the rest is whole.
    fsdp+tensor: both, over different axes of the leaf.

  Raises:
    UserError: a leaf no rule matches, an unknown strategy, or a tensor axis that does not divide a hidden width.
  """
  held = {name: leaf.shape for name, leaf in tree.named_leaves(state) if name.startswith("params/")}
  params = {name.removeprefix("params"): shape for name, shape in held.items()}

  def one(name: str, leaf: Array) -> NamedSharding:
    strategy = tree.first_match(rules, name)
    if strategy not in STRATEGIES:
      raise UserError(f"sharding: {name} has strategy {nearest(str(strategy), STRATEGIES)}")
    axes: list[str | None] = [None] * leaf.ndim
    if "tensor" in strategy and (cut := _tensor_axis(name, leaf, params)) is not None:
      axes[cut] = _divided(name, leaf, cut, mesh.shape["tensor"])
    if "fsdp" in strategy and leaf.size >= fsdp_min_size:
      _cut_largest(axes, leaf.shape, mesh.shape["fsdp"])
    return NamedSharding(mesh, PartitionSpec(*axes))

  return tree.map_named(one, state)


def _tensor_axis(name: str, leaf: Array, params: dict[str, tuple[int, ...]]) -> int | None:
  """Returns the axis of a leaf that is cut over `tensor`.

  A moment has its parameter's path and shape; Adafactor's rows and columns have the path alone.
  """
  if name.startswith("opt_state/") and leaf.shape not in [s for path, s in params.items() if name.endswith(path)]:
    return None
  return -1 if re.search(_OUTPUTS, name) else -2 if re.search(_INPUTS, name) else None


def _divided(name: str, leaf: Array, axis: int, size: int) -> str:
  if leaf.shape[axis] % size:
    raise UserError(f"mesh.tensor: {size} does not divide the {leaf.shape[axis]} of {name}{list(leaf.shape)}")
  return "tensor"


def _cut_largest(axes: list[str | None], shape: tuple[int, ...], size: int) -> None:
  free = [i for i, length in enumerate(shape) if axes[i] is None and length % size == 0]
  if free:
    axes[max(free, key=lambda i: (shape[i], i))] = "fsdp"


def constrain(x: Array) -> Array:
  """Returns x with axis 0 pinned to the mesh's batch axes; x itself where no mesh is set.

  Without the pin XLA may reshard activations between layers (measured: all-to-alls and five times the memory).
  """
  return _pinned(x, BATCH)


def whole(x: Array) -> Array:
  """Returns x pinned to be whole on every device; x itself where no mesh is set."""
  return x if _mesh() is None else jax.lax.with_sharding_constraint(x, PartitionSpec())


def split_heads(x: Array, *, axis: int = 2) -> Array:
  """Returns x[B,N,H,d] with the heads on `axis` pinned to the mesh's `tensor`, and axis 0 as `constrain` does.

  Raises:
    UserError: `tensor` does not divide the heads.
  """
  size = _tensor()
  if x.shape[axis] % size:
    raise UserError(f"mesh.tensor: {size} does not divide the {x.shape[axis]} heads of attention")
  return _split(x, axis)


def split_last(x: Array) -> Array:
  """Returns x[B,...,K] with its last axis pinned to the mesh's `tensor`, and axis 0 as `constrain` does."""
  return _split(x, x.ndim - 1)


def _split(x: Array, axis: int) -> Array:
  spec = [BATCH_AXES, *(None,) * (x.ndim - 1)]
  spec[axis] = "tensor"
  return x if _tensor() == 1 else _pinned(x, PartitionSpec(*spec))


def _pinned(x: Array, spec: PartitionSpec) -> Array:
  mesh = _mesh()
  if mesh is None or len(x) % batch_devices(mesh):  # no mesh, or the one example of an initialisation
    return x
  return jax.lax.with_sharding_constraint(x, spec)


def platform() -> str:
  """Returns what the mesh in use is made of, "cpu", "tpu" or "gpu"; without a mesh, what jax runs on.

  A program compiled ahead of time for other devices than these is traced under their mesh.
  """
  mesh = _mesh()
  device = None if mesh is None else mesh.abstract_device
  return jax.default_backend() if device is None else device.platform


def _tensor() -> int:
  mesh = _mesh()
  return 1 if mesh is None else mesh.shape["tensor"]


def _mesh() -> AbstractMesh | None:
  mesh = jax.sharding.get_abstract_mesh()
  return None if mesh.empty or "data" not in mesh.axis_names else mesh
