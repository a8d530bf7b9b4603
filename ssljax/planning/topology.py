"""Devices to compile for that need not be here, by name: "v5e:16x16", "h100:4x8", "cpu:8"."""

import dataclasses
import importlib.util
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from ssljax.errors import UserError, nearest

_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBE = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x12", "8x8x16", "8x16x16")
# Slices by the name Google sells them under; XLA calls v5p "v5".
TPUS = {"v4": _CUBE, "v5e": _FLAT, "v5p": _CUBE, "v6e": _FLAT, "tpu7x": _CUBE}
_NAMES = {"v5p": "v5"}
_MEGACORE = ("v4", "v5p")  # two cores that are one device

_GPU = """gpu_device_info {{ threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: {shared_memory} threads_per_core_limit: 2048 core_count: {cores} fpus_per_core: {fpus}
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: {bandwidth} l2_cache_size: {cache} clock_rate_ghz: {clock} device_memory_size: {memory}
  shared_memory_per_block_optin: {optin} cuda_compute_capability {{ major: {major} }}
  registers_per_core_limit: 65536 registers_per_block_limit: 65536 }}
platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 10 }} runtime_version {{ major: 12 minor: 9 patch: 0 }}
device_description_str: "{name}" """
# What the CUDA runtime says of each (cudaGetDeviceProperties), for XLA's choices of tiles and fusions.
GPUS: dict[str, dict[str, Any]] = {
  "a100": {
    "name": "NVIDIA A100-SXM4-80GB", "major": 8, "cores": 108, "fpus": 64, "clock": 1.41, "memory": 85_100_000_000,
    "bandwidth": 2_039_000_000_000, "cache": 41_943_040, "shared_memory": 167_936, "optin": 166_912,
  },
  "h100": {
    "name": "NVIDIA H100 80GB HBM3", "major": 9, "cores": 132, "fpus": 128, "clock": 1.98, "memory": 84_929_347_584,
    "bandwidth": 3_352_320_000_000, "cache": 52_428_800, "shared_memory": 233_472, "optin": 232_448,
  },
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Topology:
  """A named group of devices.

  Attributes:
    kind: "v5e", "h100", "cpu", ...
    shape: the sizes of the name: of a TPU slice the chips along its axes, of GPUs hosts and GPUs a host, of a CPU
      its devices.
    slices: TPU slices with a slower network between them.
  """

  kind: str
  shape: tuple[int, ...]
  slices: int = 1

  @property
  def name(self) -> str:
    """Returns the name as the user writes it."""
    return f"{self.kind}:{'x'.join(map(str, self.shape))}"

  @property
  def environment(self) -> Mapping[str, str]:
    """Returns the variables a process needs before it imports jax.

    Raises:
      UserError: the compiler of these devices is not installed.
    """
    if self.kind == "cpu":
      return {"JAX_PLATFORMS": "cpu"}
    return _tpu_environment() if self.kind in TPUS else _gpu_environment()

  def devices(self) -> list[Any]:
    """Returns the devices, as `jax.Device`s that programs can be compiled for.

    Raises:
      UserError: no such slice, or fewer devices on this CPU.
    """
    import jax

    if self.kind == "cpu":
      found = jax.devices("cpu")[: self.shape[0]]
      if len(found) < self.shape[0]:
        raise UserError(f"--topology: found {len(found)} devices on this CPU, expected {self.shape[0]}")
      return found
    return _compile_only(self)


def parse(text: str, *, slices: int = 1) -> Topology:
  """Returns the topology of a name; it is looked at, not looked for.

  Raises:
    UserError: an unknown kind or shape, or several slices of what has none.
  """
  kind, _, shape = text.partition(":")
  sizes = tuple(int(size) for size in shape.split("x")) if re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", shape) else ()
  axes = {"cpu": 1} | dict.fromkeys(GPUS, 2) | {name: len(shapes[0].split("x")) for name, shapes in TPUS.items()}
  if len(sizes) != axes.get(kind):
    raise UserError(f"--topology: unknown topology {nearest(text, names())}")
  if slices < 1 or (slices > 1 and kind not in TPUS):
    raise UserError(f"--slices: found {slices}, expected 1{' or more' if kind in TPUS else f': {kind} has none'}")
  return Topology(kind=kind, shape=sizes, slices=slices)


def names() -> list[str]:
  """Returns the usual topologies; others of the same kinds may do as well."""
  gpus = [f"{kind}:{shape}" for kind in GPUS for shape in ("1x8", "8x8", "32x8")]
  return [f"{kind}:{shape}" for kind, shapes in TPUS.items() for shape in shapes] + gpus + ["cpu:8"]


def _tpu_environment() -> dict[str, str]:
  if importlib.util.find_spec("libtpu") is None:
    raise UserError('--topology: TPUs are compiled for with libtpu: pip install "ssljax[tpu]" (or pip install libtpu)')
  return {
    "JAX_PLATFORMS": "cpu",  # else jax looks for a TPU to run on
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # else a second plan at the same time stops at a lock
    # Without these two libtpu prints how it failed to find out which host this is.
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
  }


def _gpu_environment() -> dict[str, str]:
  missing = [name for name in ("jax_cuda12_plugin", "nvidia.cuda_nvcc") if not _installed(name)]
  if missing:
    raise UserError('--topology: GPUs are compiled for with CUDA\'s compiler: pip install "ssljax[gpu-plan]"')
  spec = importlib.util.find_spec("nvidia.cuda_nvcc")
  assert spec is not None and spec.submodule_search_locations is not None
  folder = pathlib.Path(next(iter(spec.submodule_search_locations)))
  flags = "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"  # both would need the GPU
  return {
    "JAX_PLATFORMS": "cpu",
    "CUDA_VISIBLE_DEVICES": "-1",
    "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_cuda_data_dir={folder} {flags}".strip(),
    "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
  }


def _installed(name: str) -> bool:
  try:
    return importlib.util.find_spec(name) is not None
  except ModuleNotFoundError:  # what a missing parent package makes of it
    return False


def _compile_only(topology: Topology) -> list[Any]:
  import jax
  from jax.experimental import topologies

  try:
    found = topologies.get_topology_desc(**_arguments(topology))
  except (jax.errors.JaxRuntimeError, NotImplementedError, ValueError) as error:
    why = (str(error).splitlines() or [type(error).__name__])[0][:200]
    known = nearest(topology.name, names())
    raise UserError(f"--topology: unknown topology {known}; the compiler says: {why}") from None
  return list(found.devices)


def _arguments(topology: Topology) -> dict[str, Any]:
  """Returns what jax wants to know."""
  kind, shape = topology.kind, "x".join(map(str, topology.shape))
  if kind in GPUS:
    return {"platform": "cuda", "topology": f"1x{shape}", "target_config": _GPU.format(**GPUS[kind])}
  given: dict[str, Any] = {"platform": "tpu", "topology_name": f"{_NAMES.get(kind, kind)}:{shape}"}
  if kind in _MEGACORE:
    given["chip_config_name"] = "megacore"
  if topology.slices > 1:
    given["num_slices"] = topology.slices
  if topology.shape in ((1, 1), (2, 4)):  # one host has all of them; larger slices have four chips a host
    given["chips_per_host_bounds"] = (*topology.shape, 1)
  return given
