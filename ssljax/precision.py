"""The one matrix product: float32 parameters, operands in the compute dtype, float32 accumulation, both ways.

On a TPU or a GPU, bfloat16 operands with a float32 result use the matrix unit at full rate; on a CPU with AMX
they become tile products. Autodiff of a plain product would multiply a float32 cotangent with a bfloat16 operand
in the backward pass and fall off that path, so the backward product is written out.
"""

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
  rows = tuple(range(x16.ndim - 1))
  return _product(g16, w16, ((g16.ndim - 1,), (1,))), _product(x16, g16, (rows, rows))


_dot_bfloat16.defvjp(_forward, _backward)


def dot(x: Array, w: Array, *, dtype: Dtype = "float32") -> Array:
  """Returns x @ w as f32[..., N] for x f32[..., K] and w f32[K, N].

  Args:
    dtype: what the operands are rounded to before they are multiplied, forward and backward;
      sums are float32 either way.
  """
  if dtype == "bfloat16":
    return _dot_bfloat16(x, w)
  return _product(x, w, ((x.ndim - 1,), (0,)))
