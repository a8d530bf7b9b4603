"""The FLOP count against sums by hand, scans and gradients included."""

import jax
import jax.numpy as jnp

from ssljax import flops
from ssljax.models.conv import convolve


def shape(*sizes):
  return jax.ShapeDtypeStruct(sizes, jnp.float32)


def test_a_product_and_its_two_gradients():
  product = lambda x, w: jnp.sum(jnp.tanh(x @ w))
  assert flops.count(product, shape(4, 8), shape(8, 16)) == 2 * 4 * 8 * 16
  assert flops.count(jax.grad(product, argnums=(0, 1)), shape(4, 8), shape(8, 16)) == 3 * 2 * 4 * 8 * 16


def test_a_scanned_body_counts_once_a_layer():
  def layers(x, ws):
    return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, ws)[0]

  assert flops.count(jax.jit(layers), shape(4, 8), shape(5, 8, 8)) == 5 * 2 * 4 * 8 * 8


def test_what_each_device_does_counts_for_each():
  mesh = jax.sharding.Mesh(jax.devices()[:4], ("d",))
  place = jax.sharding.PartitionSpec("d")
  each = jax.shard_map(lambda x: x @ x.T, mesh=mesh, in_specs=place, out_specs=place)
  assert flops.count(each, shape(8, 16)) == 4 * 2 * 2 * 16 * 2


def test_convolution():
  def convolve(x, w):
    return jax.lax.conv_general_dilated(x, w, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

  assert flops.count(convolve, shape(2, 8, 8, 3), shape(3, 3, 3, 16)) == 2 * (2 * 4 * 4 * 16) * 27


def test_what_nothing_uses_does_not_count():
  def loss(x, w):
    hidden = convolve(x, w, dtype="bfloat16")  # its own gradient convolves again, and goes back to the pixels too
    return jnp.sum(jnp.tanh(hidden)), hidden.reshape(16, -1) @ hidden.reshape(-1, 16)

  one = 2 * (2 * 8 * 8 * 16) * 27
  first = lambda x, w: loss(x, w)[0]
  assert flops.count(first, shape(2, 8, 8, 3), shape(3, 3, 3, 16)) == one
  assert flops.count(jax.grad(first, argnums=1), shape(2, 8, 8, 3), shape(3, 3, 3, 16)) == 2 * one


def test_peaks():
  class Fake:
    device_kind = "TPU v5 lite"

  assert flops.peak(Fake()) == 197e12
  assert flops.peak(jax.devices()[0]) is None
