"""Eight fake CPU devices, set before jax starts; every test sees them."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"

import jax

jax.config.update("jax_num_cpu_devices", 8)
