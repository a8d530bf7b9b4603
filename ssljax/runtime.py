"""How the process is set up, before jax is imported and before it starts its devices."""

import ctypes
import os
import pathlib
import platform
import sys

# glibc's mallopt parameters (malloc.h)
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_TOP_PAD_BYTES = 1 << 28


def keep_memory() -> bool:
  """Tells glibc to keep freed memory; returns whether it could. Must run before jax is imported.

  XLA's CPU backend allocates one large temporary a step and frees it. glibc gives such blocks back to the kernel, so
  that every step pays for its page faults again (about 165,000 in a ViT-Ti step, a third of the time). After jax has
  started, the call has no effect.
  """
  if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc" or "jax" in sys.modules:
    return False
  libc = ctypes.CDLL(None)
  settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_ARENA_MAX, 1), (_TOP_PAD, _TOP_PAD_BYTES))
  return all(libc.mallopt(key, value) for key, value in settings)


def cores() -> int:
  """Returns the number of cores this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def devices_of_cores(count: int) -> int:
  """Returns how many devices a CPU shows by default: the largest power of two up to its cores, at most 16.

  A power of two divides the batches of most configs on any machine; XLA's threads use the cores that are left.
  """
  return 2 ** (min(count, 16).bit_length() - 1)


def start(*, cpu_devices: int | None = None, cache: str | os.PathLike[str] | None = None) -> None:
  """Imports jax with the settings training wants.

  Args:
    cpu_devices: how many devices the CPU shows; default: `devices_of_cores`. Has no effect on accelerators.
    cache: folder of compiled programs kept between runs; default: `$JAX_COMPILATION_CACHE_DIR`, else
      `~/.cache/ssljax/xla`.
  """
  keep_memory()
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  import jax

  jax.config.update("jax_num_cpu_devices", cpu_devices or devices_of_cores(cores()))
  default = os.environ.get("JAX_COMPILATION_CACHE_DIR") or pathlib.Path.home() / ".cache" / "ssljax" / "xla"
  jax.config.update("jax_compilation_cache_dir", str(cache or default))
  # The default leaves out what compiles in under a second; a run has dozens of those.
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
  jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
