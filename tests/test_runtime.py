"""Set-up of the process: devices by cores, and huge pages where they have to be asked for."""

import os
import platform
import subprocess
import sys

import pytest

from ssljax import runtime


@pytest.mark.parametrize(("cores", "devices"), [(1, 1), (2, 2), (3, 2), (6, 4), (12, 8), (96, 8)])
def test_devices(cores, devices):
  assert runtime.devices_of_cores(cores) == devices


@pytest.mark.parametrize(
  ("policy", "tunables", "wanted"),
  [
    ("always [madvise] never", None, True),
    ("[always] madvise never", None, False),  # every process has them
    ("always madvise [never]", None, False),  # nobody gets them
    ("always [madvise] never", "glibc.malloc.check=3", False),
  ],
)
def test_huge_pages_are_asked_for_where_that_helps(tmp_path, monkeypatch, policy, tunables, wanted):
  (tmp_path / "enabled").write_text(policy)
  monkeypatch.setattr(runtime, "_KERNEL_POLICY", tmp_path / "enabled")
  monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
  if tunables:
    monkeypatch.setenv("GLIBC_TUNABLES", tunables)
  assert runtime.wants_huge_pages() == (wanted and platform.libc_ver()[0] == "glibc")


def test_memory_is_kept_before_jax_and_not_after():
  assert runtime.keep_memory() is False  # jax is imported here
  program = "from ssljax import runtime; print(runtime.keep_memory())"
  printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
  assert printed.strip() == str(platform.libc_ver()[0] == "glibc")


def test_the_new_start_keeps_the_arguments():
  program = "import os, sys; from ssljax import runtime"
  program += "; runtime.wants_huge_pages = lambda: 'GLIBC_TUNABLES' not in os.environ"
  program += "; runtime.use_huge_pages(); print(os.environ['GLIBC_TUNABLES'], sys.argv[1:])"
  environment = {key: value for key, value in os.environ.items() if key != "GLIBC_TUNABLES"}
  command = [sys.executable, "-c", program, "a b", "--c=1"]
  printed = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
  assert printed.strip() == "glibc.malloc.hugetlb=1 ['a b', '--c=1']"
