"""Set-up of the process: devices by cores, and memory kept only where it can be."""

import platform
import subprocess
import sys

import pytest

from ssljax import runtime


@pytest.mark.parametrize(("cores", "devices"), [(1, 1), (2, 2), (3, 2), (6, 4), (12, 8), (16, 16), (96, 16)])
def test_devices(cores, devices):
  assert runtime.devices_of_cores(cores) == devices


def test_memory_is_kept_before_jax_and_not_after():
  assert runtime.keep_memory() is False  # jax is imported here
  program = "from ssljax import runtime; print(runtime.keep_memory())"
  printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
  assert printed.strip() == str(platform.libc_ver()[0] == "glibc")
