"""The one matrix product: its values, and that its backward products keep bfloat16 operands and float32 sums."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax import precision

X, W, G = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate([(2, 5, 16), (16, 8), (2, 5, 8)]))


def rounded(x):
  return np.asarray(x.astype(jnp.bfloat16).astype(jnp.float32), np.float64)


@pytest.mark.parametrize(("dtype", "cast"), [("float32", lambda x: np.asarray(x, np.float64)), ("bfloat16", rounded)])
def test_value_and_gradients(dtype, cast):
  out, pullback = jax.vjp(lambda x, w: precision.dot(x, w, dtype=dtype), X, W)
  dx, dw = pullback(G)
  assert out.dtype == dx.dtype == dw.dtype == jnp.float32
  np.testing.assert_allclose(out, cast(X) @ cast(W), rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(dx, cast(G) @ cast(W).T, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(dw, np.einsum("bsk,bsn->kn", cast(X), cast(G)), rtol=1e-4, atol=1e-5)


def test_all_three_products_have_bfloat16_operands_and_float32_results():
  text = str(jax.make_jaxpr(jax.grad(lambda w: precision.dot(X, w, dtype="bfloat16").sum()))(W))
  products = [line for line in text.splitlines() if "dot_general" in line]
  assert products and all("f32" in line.split("=")[0] for line in products)
  assert "preferred_element_type=float32" in text and text.count("bf16") >= 2


EINSUM = (
  "bqhd,bkhd->bhqk",
  jax.random.normal(jax.random.key(4), (2, 5, 3, 4)),
  jax.random.normal(jax.random.key(5), (2, 6, 3, 4)),
)


@pytest.mark.parametrize(("dtype", "cast"), [("float32", lambda x: np.asarray(x, np.float64)), ("bfloat16", rounded)])
def test_einsum_value_and_gradients(dtype, cast):
  spec, a, b = EINSUM
  g = jax.random.normal(jax.random.key(6), (2, 3, 5, 6))
  out, pullback = jax.vjp(lambda a, b: precision.einsum(spec, a, b, dtype=dtype), a, b)
  da, db = pullback(g)
  assert out.dtype == da.dtype == db.dtype == jnp.float32
  np.testing.assert_allclose(out, np.einsum(spec, cast(a), cast(b)), rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(da, np.einsum("bhqk,bkhd->bqhd", cast(g), cast(b)), rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(db, np.einsum("bqhd,bhqk->bkhd", cast(a), cast(g)), rtol=1e-4, atol=1e-5)


def test_einsum_has_bfloat16_operands_and_float32_results_both_ways():
  spec, a, b = EINSUM
  a, b = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
  gradient = jax.grad(lambda a, b: jnp.sum(precision.einsum(spec, a, b, dtype="bfloat16") ** 2), argnums=(0, 1))
  jaxpr = jax.make_jaxpr(gradient)(a, b)
  products = [
    e for inner in [jaxpr.jaxpr, *_inner(jaxpr.jaxpr)] for e in inner.eqns if e.primitive.name == "dot_general"
  ]
  assert len(products) == 3
  assert all(e.outvars[0].aval.dtype == jnp.float32 for e in products)
  assert all(v.aval.dtype == jnp.bfloat16 for e in products for v in e.invars)


def _inner(jaxpr):
  for equation in jaxpr.eqns:
    for value in equation.params.values():
      inner = getattr(value, "jaxpr", value)
      if hasattr(inner, "eqns"):
        yield inner
        yield from _inner(inner)
