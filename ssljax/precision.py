"""The one matrix product: float32 parameters, operands in the compute dtype, float32 accumulation, both ways.

On a TPU or a GPU, bfloat16 operands with a float32 result use the matrix unit at full rate; on a CPU with AMX
they become tile products. Autodiff of a plain product would multiply a float32 cotangent with a bfloat16 operand
in the backward pass and fall off that path, so the backward product is written out.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp

from ssljax.types import Array

Dtype = Literal["float32", "bfloat16"]


def _product(a: Array, b: Array, contract: tuple[tuple[int, ...], tuple[int, ...]]) -> Array:
  return jax.lax.dot_general(a, b, (contract, ((), ())), preferred_element_type=jnp.float32)


@jax.custom_vjp
def _dot_bfloat16(x: Array, w: Array) -> Array:
  return _product(x.astype(jnp.bfloat16), w.astype(jnp.bfloat16), ((x.ndim - 1,), (0,)))


def _forward(x: Array, w: Array) -> tuple[Array, tuple[Array, Array]]:
  x16, w16 = x.astype(jnp.bfloat16), w.astype(jnp.bfloat16)
  return _product(x16, w16, ((x.ndim - 1,), (0,))), (x16, w16)


def _backward(residual: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
  x16, w16 = residual
  g16 = cotangent.astype(jnp.bfloat16)
  rows, outputs = tuple(range(x16.ndim - 1)), tuple(range(1, w16.ndim))
  last = tuple(axis + len(rows) - 1 for axis in outputs)
  return _product(g16, w16, (last, outputs)), _product(x16, g16, (rows, rows))


_dot_bfloat16.defvjp(_forward, _backward)


def dot(x: Array, w: Array, *, dtype: Dtype = "float32") -> Array:
  """Returns x @ w as f32[..., N] for x f32[..., K] and w f32[K, N]; N may be several axes.

  Args:
    dtype: what the operands are rounded to before they are multiplied, forward and backward;
      sums are float32 either way.
  """
  if dtype == "bfloat16":
    return _dot_bfloat16(x, w)
  return _product(x, w, ((x.ndim - 1,), (0,)))


def _in_order(spec: str, a: Array, b: Array) -> tuple[str, Array, Array]:
  # XLA for CPUs has no bfloat16 product whose result lies transposed: what b keeps must come after what a keeps.
  (left, right), out = spec.split("->")[0].split(","), spec.split("->")[1]
  first = min(out.index(i) for i in out if (i in left) != (i in right))
  return (spec, a, b) if out[first] in left else (f"{right},{left}->{out}", b, a)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _einsum_bfloat16(spec: str, a: Array, b: Array) -> Array:
  spec, a, b = _in_order(spec, a.astype(jnp.bfloat16), b.astype(jnp.bfloat16))
  return jnp.einsum(spec, a, b, preferred_element_type=jnp.float32)


def _einsum_forward(spec: str, a: Array, b: Array) -> tuple[Array, tuple[Array, Array]]:
  return _einsum_bfloat16(spec, a, b), (a, b)


def _einsum_backward(spec: str, residual: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
  (a, b), (operands, out) = residual, spec.split("->")
  left, right = operands.split(",")
  of_a = _einsum_bfloat16(f"{out},{right}->{left}", cotangent, b)
  return of_a.astype(a.dtype), _einsum_bfloat16(f"{left},{out}->{right}", a, cotangent).astype(b.dtype)


_einsum_bfloat16.defvjp(_einsum_forward, _einsum_backward)


def einsum(spec: str, a: Array, b: Array, *, dtype: Dtype = "float32") -> Array:
  """Returns the einsum of two arrays in float32, rounded, summed and differentiated as `dot` is.

  Args:
    spec: such as "bqhd,bkhd->bhqk", without an ellipsis; an index of one array is also in the other or in the result.
    a: f32 or bf16; it is kept for the backward pass as it is given.
    b: likewise.
    dtype: as of `dot`.
  """
  if dtype == "bfloat16":
    return _einsum_bfloat16(spec, a, b)
  return jnp.einsum(spec, a, b, preferred_element_type=jnp.float32)
