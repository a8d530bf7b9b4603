"""Eight fake CPU devices, set before jax starts; every test sees them."""

import importlib.util
import os

os.environ["JAX_PLATFORMS"] = "cpu"
# Compiles a third faster than with them.
os.environ["XLA_FLAGS"] = "--xla_cpu_use_fusion_emitters=false"

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
# Tests compile far longer than they run. Of the processes that tests start, some compile as users do (test_resume.py).
jax.config.update("jax_disable_most_optimizations", True)


# The files that take longest. Workers that share the tests (-n 2 --dist loadfile) begin with them: one that began last
# would leave the other worker idle for minutes.
LONGEST = ("test_resume", "test_configs", "test_hosts", "test_cli_continual", "test_contract", "test_cli")


def pytest_collection_modifyitems(items):
  """Begins with the longest files, and skips what needs torchvision where it is not.

  (Its PyPI build does not go with the CPU build of torch.)
  """
  rank = {name: number for number, name in enumerate(LONGEST)}
  items.sort(key=lambda item: rank.get(item.path.stem, len(LONGEST)))
  if importlib.util.find_spec("torchvision") is None:
    for item in items:
      if item.get_closest_marker("torchvision"):
        item.add_marker(pytest.mark.skip(reason="torchvision is not installed (docs/export.md)"))
