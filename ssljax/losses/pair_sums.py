"""Sums over all pairs of rows x_i and columns y_j, with gradients, in memory that does not grow with the pairs.

The logit of a pair is s_ij = x_i . y_j: callers put temperature and scale into x. Nothing of a pair is kept between
the forward and the backward pass, which computes the logits again; a softmax needs its logsumexps alone,

    d logsumexp_j(s_ij) / d s_ij = exp(s_ij - logsumexp_i)

so backward is one more walk with a weight w_ij for each pair: dx_i = sum_j w_ij y_j and dy_j = sum_i w_ij x_i. The
sums have no forward-mode derivative. A `Way` (pairs.py) says in which order, and on which device, pairs are met.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ssljax.losses.pairs import Way
from ssljax.types import Array, PyTree

LOWEST = float(jnp.finfo(jnp.float32).min)  # a finite start: minus infinity less itself is not a number
State = tuple[Array, Array]  # running maximum, and sum of exponentials less it
Weigh = Callable[[Array, PyTree, PyTree, Array], Array]


def products(x: Array, y: Array) -> Array:
  """Returns x y^T f32[N,M] of x[N,D] and y[M,D], exactly.

  Accelerators round float32 operands by default; a logit is divided by a small temperature, so it must be exact.
  """
  return _multiply(x, y.T)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def row_logsumexp(way: Way, x: Array, y: Array) -> Array:
  """Returns log sum_j exp(x_i . y_j), f32[N], of x f32[N,D] and y f32[M,D]."""
  return _row_forward(way, x, y)[0]


def _row_forward(way: Way, x: Array, y: Array) -> tuple[Array, PyTree]:
  def body(x: Array, y: Array) -> tuple[Array, tuple]:
    step = lambda state, y, luggage, places: (_absorb(state, products(x, y), axis=1), luggage)
    state, _ = way.walk(step, _empty(x), y)
    return _log(state), ()

  logs, _ = way.run(body, x, y)
  return logs, (x, y, logs)


def _row_backward(way: Way, residuals: PyTree, slope: Array) -> tuple[Array, Array]:
  x, y, logs = residuals
  weigh = lambda logits, rows, columns, same: rows[1][:, None] * jnp.exp(logits - rows[0][:, None])
  return _gradients(way, weigh, (x, (logs, slope)), (y, ()))


row_logsumexp.defvjp(_row_forward, _row_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def others_logsumexp(way: Way, x: Array) -> tuple[Array, Array]:
  """Returns log sum_j exp(x_i . x_j) over the rows of other examples, f32[N], and the largest such logit, f32[N].

  Rows 2k and 2k+1 of x f32[N,D] are of one example; a row meets neither itself nor its partner. Without others the
  logarithm is minus infinity. The largest logit has no gradient.
  """
  return _others_forward(way, x)[0]


def _others_forward(way: Way, x: Array) -> tuple[tuple[Array, Array], PyTree]:
  def body(x: Array, y: Array) -> tuple[tuple[Array, Array], tuple]:
    own = way.places(len(x))

    def step(state: State, y: Array, luggage: tuple, places: Array) -> tuple[State, tuple]:
      return _absorb(state, jnp.where(_partners(own, places), -jnp.inf, products(x, y)), axis=1), luggage

    state, _ = way.walk(step, _empty(x), y)
    return (_log(state), state[0]), ()

  (logs, top), _ = way.run(body, x, x)
  return (logs, top), (x, logs)


def _others_backward(way: Way, residuals: PyTree, slopes: tuple[Array, Array]) -> tuple[Array]:
  x, logs = residuals

  def body(rows: PyTree, columns: PyTree) -> tuple[Array, tuple]:
    x, logs, slope = rows
    own = way.places(len(x))

    def step(dx: Array, block: PyTree, luggage: tuple, places: Array) -> tuple[Array, tuple]:
      y, column_logs, column_slope = block
      logits = products(x, y)
      # A pair is met by both of its rows, so each takes what both logsumexps say and no gradient has to travel.
      weight = slope[:, None] * jnp.exp(logits - logs[:, None]) + column_slope * jnp.exp(logits - column_logs)
      return dx + _multiply(jnp.where(_partners(own, places), 0.0, weight), y), luggage

    return way.walk(step, jnp.zeros_like(x), columns)

  rows = (x, logs, slopes[0])
  return way.run(body, rows, rows)[:1]


others_logsumexp.defvjp(_others_forward, _others_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def logsumexps(way: Way, x: Array, y: Array) -> tuple[Array, Array]:
  """Returns log sum_j exp(x_i . y_j), f32[N], and log sum_i exp(x_i . y_j), f32[M], of x f32[N,D] and y f32[M,D]."""
  return _both_forward(way, x, y)[0]


def _both_forward(way: Way, x: Array, y: Array) -> tuple[tuple[Array, Array], PyTree]:
  def body(x: Array, y: Array) -> tuple[Array, Array]:
    def step(state: State, y: Array, luggage: State, places: Array) -> tuple[State, State]:
      logits = products(x, y)
      return _absorb(state, logits, axis=1), _absorb(luggage, logits, axis=0)

    rows, columns = way.walk(step, _empty(x), y, _empty)
    return _log(rows), way.join_logs(_log(columns))

  logs = way.run(body, x, y)
  return logs, (x, y, *logs)


def _both_backward(way: Way, residuals: PyTree, slopes: tuple[Array, Array]) -> tuple[Array, Array]:
  x, y, row_logs, column_logs = residuals

  def weigh(logits: Array, rows: State, columns: State, same: Array) -> Array:
    by_row = rows[1][:, None] * jnp.exp(logits - rows[0][:, None])
    return by_row + columns[1] * jnp.exp(logits - columns[0])

  return _gradients(way, weigh, (x, (row_logs, slopes[0])), (y, (column_logs, slopes[1])))


logsumexps.defvjp(_both_forward, _both_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def row_softplus(way: Way, x: Array, y: Array, bias: Array) -> Array:
  """Returns sum_j softplus(-m_ij (x_i . y_j + bias_i)), f32[N], where m_ij is 1 for i = j and -1 otherwise.

  Args:
    way: in which order the pairs are met.
    x: f32[N,D].
    y: f32[N,D].
    bias: f32[N].
  """
  return _softplus_forward(way, x, y, bias)[0]


def _softplus_forward(way: Way, x: Array, y: Array, bias: Array) -> tuple[Array, PyTree]:
  def body(rows: PyTree, y: Array) -> tuple[State, tuple]:
    x, bias = rows
    own = way.places(len(x))

    def step(state: State, y: Array, luggage: tuple, places: Array) -> tuple[State, tuple]:
      logits, sign = products(x, y) + bias[:, None], _sign(own[:, None] == places)
      terms, slopes = jax.nn.softplus(sign * logits), sign * jax.nn.sigmoid(sign * logits)
      return (state[0] + jnp.sum(terms, axis=1), state[1] + jnp.sum(slopes, axis=1)), luggage

    return way.walk(step, (jnp.zeros_like(bias), jnp.zeros_like(bias)), y)

  (total, slope), _ = way.run(body, (x, bias), y)
  return total, (x, y, bias, slope)


def _softplus_backward(way: Way, residuals: PyTree, slope: Array) -> tuple[Array, Array, Array]:
  x, y, bias, bias_slope = residuals

  def weigh(logits: Array, rows: State, columns: tuple, same: Array) -> Array:
    bias, slope = rows
    sign = _sign(same)
    return slope[:, None] * sign * jax.nn.sigmoid(sign * (logits + bias[:, None]))

  return *_gradients(way, weigh, (x, (bias, slope)), (y, ())), slope * bias_slope


row_softplus.defvjp(_softplus_forward, _softplus_backward)


def _gradients(way: Way, weigh: Weigh, rows: PyTree, columns: PyTree) -> tuple[Array, Array]:
  """Returns dx_i = sum_j w_ij y_j and dy_j = sum_i w_ij x_i.

  Args:
    way: in which order the pairs are met.
    weigh: (logits, values of the rows, values of the columns, whether i = j) -> w, of one block.
    rows: x and values [N].
    columns: y and values [M].
  """

  def body(rows: PyTree, columns: PyTree) -> tuple[Array, Array]:
    x, row_values = rows
    own = way.places(len(x))

    def step(dx: Array, block: PyTree, dy: Array, places: Array) -> tuple[Array, Array]:
      y, column_values = block
      weight = weigh(products(x, y), row_values, column_values, own[:, None] == places)
      return dx + _multiply(weight, y), dy + _multiply(weight.T, x)

    dx, dy = way.walk(step, jnp.zeros_like(x), columns, lambda columns: jnp.zeros_like(columns[0]))
    return dx, way.join_sums(dy)

  return way.run(body, rows, columns)


def _absorb(state: State, logits: Array, *, axis: int) -> State:
  """Returns the state with the logits of one more block, reduced over `axis`."""
  top, total = state
  higher = jnp.maximum(top, jnp.max(logits, axis=axis))
  new = jnp.sum(jnp.exp(logits - jnp.expand_dims(higher, axis)), axis=axis)
  return higher, total * jnp.exp(top - higher) + new


def _empty(x: Array) -> State:
  like = x[:, 0]
  return jnp.full_like(like, LOWEST), jnp.zeros_like(like)


def _log(state: State) -> Array:
  top, total = state
  return top + jnp.log(total)


def _partners(own: Array, places: Array) -> Array:
  return own[:, None] // 2 == places // 2


def _sign(same: Array) -> Array:
  return jnp.where(same, -1.0, 1.0)


def _multiply(x: Array, y: Array) -> Array:
  return jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST)
