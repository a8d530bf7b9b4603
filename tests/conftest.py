"""Eight fake CPU devices, set before jax starts; every test sees them."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
# Compiles a third faster than with them; processes that tests start do without this (test_resume.py).
os.environ["XLA_FLAGS"] = "--xla_cpu_use_fusion_emitters=false"

import jax

jax.config.update("jax_num_cpu_devices", 8)
# Tests compile far longer than they run. Processes that tests start (test_resume.py) compile as users do.
jax.config.update("jax_disable_most_optimizations", True)


def pytest_collection_modifyitems(items):
  """Skips what needs torchvision where it is not (its PyPI build does not go with the CPU build of torch)."""
  import importlib.util

  import pytest

  if importlib.util.find_spec("torchvision") is None:
    for item in items:
      if item.get_closest_marker("torchvision"):
        item.add_marker(pytest.mark.skip(reason="torchvision is not installed (docs/export.md)"))
