"""How the process is set up, before jax is imported and before it starts its devices."""

import ctypes
import os
import pathlib
import platform
import sys

# glibc's mallopt parameters (malloc.h)
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8
_KEPT_BYTES = 1 << 29
_HUGE_PAGES = "glibc.malloc.hugetlb=1"
_KERNEL_POLICY = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")


def wants_huge_pages() -> bool:
  """Returns whether glibc has to be told to ask for huge pages: Linux hands them out on request, and nobody did.

  A user who set GLIBC_TUNABLES has the last word.
  """
  if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc" or "GLIBC_TUNABLES" in os.environ:
    return False
  return _KERNEL_POLICY.is_file() and "[madvise]" in _KERNEL_POLICY.read_text("ascii")


def use_huge_pages() -> None:
  """Starts the process's own command again, where `wants_huge_pages`, with glibc asking for huge pages.

  XLA's CPU backend allocates one large temporary a step and device and frees it, glibc gives it back to the kernel, and
  each step pays for its page faults again: 280,000 a device in a SimCLR ViT-Ti step. In pages of 2 MB they are 500
  times fewer. glibc reads the setting when a process starts, hence the new start (the process id stays).
  """
  if wants_huge_pages():
    os.environ["GLIBC_TUNABLES"] = _HUGE_PAGES
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def keep_memory() -> bool:
  """Tells glibc to keep freed blocks below 512 MB; returns whether it could. Must run before jax is imported.

  It saves the page faults that `use_huge_pages` only makes rarer. Larger blocks go back to the kernel: a freed block
  that lost a few bytes to a small one no longer serves the next step, and with blocks of 1.1 GB the heap grew to 17 GB
  within 16 steps. After jax has started, the call has no effect.
  """
  if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc" or "jax" in sys.modules:
    return False
  libc = ctypes.CDLL(None)
  settings = ((_MMAP_THRESHOLD, _KEPT_BYTES), (_TRIM_THRESHOLD, -1), (_ARENA_MAX, 1), (_TOP_PAD, _KEPT_BYTES // 2))
  return all(libc.mallopt(key, value) for key, value in settings)


def cores() -> int:
  """Returns the number of cores this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def devices_of_cores(count: int) -> int:
  """Returns how many devices a CPU shows by default: the largest power of two up to its cores, at most 8.

  So few that they divide the batch of any of our configs; XLA's threads use the cores that are left.
  """
  return 2 ** (min(count, 8).bit_length() - 1)


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
