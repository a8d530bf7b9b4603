"""The losses by gather and ring: the formulas' numbers, the dense losses' gradients, and no large matrix."""

import contextlib
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from slow_contrastive import slow_accuracy, slow_info_nce, slow_nt_xent, slow_sigmoid, slow_softmax

from ssljax import sharding
from ssljax.errors import UserError
from ssljax.losses import contrastive
from ssljax.losses.pairs import Gather, Ring, Whole, choose

BATCH, WIDTH, QUEUE = 8, 3, 24
LARGE = 64  # batch of the tests of shapes
KEYWORDS = {
  "nt_xent": dict(temperature=0.2),
  "info_nce": dict(temperature=0.2),
  "softmax": dict(scale=5.0),
  "sigmoid": dict(scale=5.0, bias=-1.5),
}
FUNCTIONS = {
  "nt_xent": contrastive.nt_xent_and_accuracy,
  "info_nce": contrastive.info_nce,
  "softmax": contrastive.softmax_loss,
  "sigmoid": contrastive.sigmoid_loss,
}
SLOW = {
  "nt_xent": slow_nt_xent,
  "info_nce": slow_info_nce,
  "softmax": slow_softmax,
  "sigmoid": slow_sigmoid,
}
MESHES = {
  "none": None,
  "1": dict(data=1),
  "2": dict(data=2),
  "4": dict(data=2, fsdp=2),
  "8": dict(data=8),
  "2x2x2": dict(data=2, fsdp=2, tensor=2),
}


COLLECTIVES = "all-gather|all-reduce|all-to-all|collective-broadcast|collective-permute|reduce-scatter"


def make_inputs(batch=BATCH, queue=QUEUE):
  """Arrays and numbers of each loss: all are differentiated."""
  draw = np.random.default_rng(0).normal
  arrays = lambda *counts: tuple(draw(size=(count, WIDTH)).astype(np.float32) for count in counts)
  counts = {name: (batch, batch) for name in FUNCTIONS} | {"info_nce": (batch, batch, queue)}
  return {name: (arrays(*counts[name]), jax.tree.map(np.float32, KEYWORDS[name])) for name in FUNCTIONS}


def extreme(inputs):
  keywords = dict(temperature=0.01, scale=100.0, bias=-10.0)
  return {name: (arrays, {key: np.float32(keywords[key]) for key in own}) for name, (arrays, own) in inputs.items()}


def equal(inputs):
  return {name: (jax.tree.map(np.ones_like, arrays), own) for name, (arrays, own) in inputs.items()}


def every_loss(pairs, inputs, chunk=4):
  """({loss: value} and the accuracy, their gradients) in one program: compiling is what takes the time."""

  def total(inputs):
    values = {}
    for name, (arrays, own) in inputs.items():
      values[name] = FUNCTIONS[name](*arrays, **own, pairs=pairs, chunk=chunk)
    values["nt_xent"], values["accuracy"] = values["nt_xent"]
    return sum(values[name] for name in inputs), values

  (_, values), gradients = jax.value_and_grad(total, has_aux=True)(inputs)
  return values, gradients


def on(name):
  """The context of a mesh over its first devices."""
  sizes = MESHES[name]
  if sizes is None:
    return contextlib.nullcontext()
  return jax.set_mesh(sharding.make_mesh(**sizes, devices=jax.devices()[: int(np.prod(list(sizes.values())))]))


def put(inputs, mesh):
  """The inputs where the trainer has them: rows over the devices, numbers and the queue on all."""
  cut, whole = sharding.batch_sharding(mesh), sharding.replicated(mesh)
  placed = jax.device_put(inputs, jax.tree.map(lambda x: cut if x.ndim else whole, inputs))
  (query, key, queue), own = placed["info_nce"]
  return placed | {"info_nce": ((query, key, jax.device_put(queue, whole)), own)}


@pytest.fixture(scope="module")
def dense():
  return jax.jit(lambda inputs: every_loss("dense", inputs))


def slow(inputs):
  found = {name: SLOW[name](*arrays, **jax.tree.map(float, own)) for name, (arrays, own) in inputs.items()}
  return found | {"accuracy": slow_accuracy(*inputs["nt_xent"][0])}


def close(found, expected, rtol, atol):
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), found, expected)


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("pairs", ["gather", "ring"])
def test_values_are_the_formulas_and_gradients_the_dense_ones(pairs, mesh, dense):
  inputs = make_inputs()
  chunk = 5 if mesh in ("none", "2") else 4  # 5 divides none of 8, 16 and 24
  with on(mesh):
    function = jax.jit(lambda inputs: every_loss(pairs, inputs, chunk))
    values, gradients = function(inputs)
    sharp_values, sharp_gradients = function(extreme(inputs))
    equal_values, equal_gradients = function(equal(inputs))
  close(values, slow(inputs), 1e-5, 1e-6)
  close(gradients, dense(inputs)[1], 1e-4, 1e-5)

  close(sharp_values, slow(extreme(inputs)), 1e-5, 1e-5)
  expected = dense(extreme(inputs))[1]
  for found, wanted in zip(
    *jax.tree.map(np.asarray, [jax.tree.leaves(sharp_gradients), jax.tree.leaves(expected)]), strict=True
  ):
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=3e-5 * np.abs(wanted).max() + 1e-5)

  choices = {"nt_xent": 2 * BATCH - 1, "info_nce": QUEUE + 1, "softmax": BATCH}
  close({name: equal_values[name] for name in choices}, {name: np.log(n) for name, n in choices.items()}, 0, 3e-6)
  close(equal_gradients, dense(equal(inputs))[1], 1e-4, 1e-4)  # the dense gradient of the temperature is 3e-5, not 0


@functools.cache
def compiled(pairs, *, mesh="8", rows=8):
  """Every loss, compiled for arrays that lie where the trainer has them, with `rows` rows a device."""
  devices = int(np.prod(list(MESHES[mesh].values())))
  with on(mesh):
    inputs = put(make_inputs(rows * devices, 2 * rows * devices), jax.sharding.get_mesh())
    return jax.jit(lambda inputs: every_loss(pairs, inputs)).lower(inputs).compile()


def elements(shapes):
  return [int(np.prod([int(n) for n in dims.split(",")])) for dims in re.findall(r"\w\[([\d,]+)\]", shapes)]


def collectives(text):
  """{kind: elements of each collective's result} of a compiled program."""
  found = {}
  for shapes, kind in re.findall(rf"= (\([^)]*\)|\S+) ({COLLECTIVES})(?:-start)?\(", text):
    found.setdefault(kind, []).append(sum(elements(shapes)))
  return found


def test_no_device_holds_its_rows_against_all_columns():
  large = lambda text: {n for n in elements(text) if n >= 8 * 64}
  assert large(compiled("dense").as_text())
  gather, ring = compiled("gather").as_text(), compiled("ring").as_text()
  assert not large(gather) and not large(ring)

  found = collectives(ring)
  assert set(found) == {"collective-permute", "all-reduce"} and sum(found["all-reduce"]) < 20, found
  # nt_xent 1 + 3; info_nce 1 + 3, softmax 5 + 5, sigmoid 1 + 3: forward, backward
  assert len(found["collective-permute"]) == 22, found
  assert max(found["collective-permute"]) == 2 * 8 * WIDTH  # a block of one device, never the batch

  found = collectives(gather)
  assert set(found) == {"all-gather", "all-reduce", "reduce-scatter"}, found
  # The gradient of the queue, columns' maxima and a few numbers.
  assert sum(found["all-reduce"]) < 128 * WIDTH + 64 + 20, found


def test_the_ring_needs_no_more_memory_on_more_devices():
  few, many = (compiled("ring", mesh=mesh).memory_analysis().temp_size_in_bytes for mesh in ("2", "8"))
  assert many < 1.1 * few


def test_inside_a_scan_on_a_mesh(dense):
  inputs = make_inputs()

  def twice(inputs):
    def one(total, factor):
      arrays, own = inputs["softmax"]
      return total + factor * contrastive.softmax_loss(*arrays, **own, pairs="ring", chunk=4), None

    return jax.lax.scan(one, jnp.float32(0), jnp.asarray([1.0, 2.0]))[0]

  with on("2x2x2"):
    value, gradients = jax.jit(jax.value_and_grad(twice))(inputs)
  values, expected = dense(inputs)
  close(value, 3 * values["softmax"], 1e-5, 1e-6)
  close(gradients["softmax"], jax.tree.map(lambda x: 3 * x, expected["softmax"]), 1e-4, 1e-5)


@pytest.mark.parametrize("pairs", ["gather", "ring"])
def test_what_is_not_finite_is_seen(pairs):
  """The step leaves out a batch whose loss is not finite: no maximum may swallow it."""
  inputs = make_inputs()
  for arrays, _ in inputs.values():
    arrays[-1][3, 1] = np.nan
  values, _ = jax.jit(lambda inputs: every_loss(pairs, inputs, 5))(inputs)
  assert all(np.isnan(values[name]) for name in inputs)


def test_one_example_has_no_negatives():
  a = np.ones((1, 3), np.float32)
  function = lambda a: contrastive.nt_xent(a, a, temperature=0.1, pairs="ring")
  value, gradient = jax.jit(jax.value_and_grad(function))(a)
  assert float(value) == 0 and not np.any(gradient)


def test_ways():
  with on("2x2x2"):
    way = choose("ring", chunk=7, rows=8, columns=12)
    assert way == Ring(chunk=7, axes=sharding.BATCH[0], devices=4) and "tensor" not in way.axes
    assert isinstance(choose("gather", chunk=7, rows=8, columns=12), Gather)
    assert isinstance(choose("gather", chunk=7, rows=8, columns=13, gather=Whole), Whole)
  assert choose("ring", chunk=7, rows=7, columns=13) == Whole(chunk=7)
  with jax.set_mesh(jax.sharding.Mesh(np.asarray(jax.devices()), ("model",))):
    assert choose("ring", chunk=7, rows=7, columns=13) == Whole(chunk=7)


@pytest.mark.parametrize("pairs", ["gather", "ring"])
@pytest.mark.parametrize("mesh", ["none", "2x2x2"])
def test_every_row_meets_every_column_once_and_knows_its_number(pairs, mesh):
  names = 100 + np.arange(24.0, dtype=np.float32)  # of the columns

  def meet(names):
    way = choose(pairs, chunk=4, rows=8, columns=24)

    def body(rows, columns):
      def step(met, names, luggage, places):
        known = names - 100 == places
        return met + jnp.sum(jnp.where(known, names, jnp.nan)) + 0 * rows, luggage + jnp.sum(rows)

      met, luggage = way.walk(step, jnp.zeros_like(rows), columns, jnp.zeros_like)
      return met, way.join_sums(luggage)

    return way.run(body, jnp.arange(8.0), names)

  with on(mesh):
    met, luggage = jax.jit(meet)(names)
  np.testing.assert_array_equal(met, np.full(8, names.sum()))
  np.testing.assert_array_equal(luggage, np.full(24, 28.0))


@pytest.mark.parametrize(
  ("keywords", "message"),
  [
    (dict(pairs="rnig"), r"pairs rnig \(did you mean ring\? valid: dense, gather, ring\)"),
    (dict(pairs="ring", chunk=0), "chunk 0, expected at least 1"),
    (dict(pairs="ring"), 'pairs "ring": 12 rows on 8 devices, expected a multiple of 8'),
    (dict(pairs="gather"), 'pairs "gather": 12 rows on 8 devices, expected a multiple of 8'),
  ],
)
def test_refusals_are_one_line(keywords, message):
  inputs = make_inputs(12)
  with on("8"):
    for name, (arrays, own) in inputs.items():
      with pytest.raises(UserError, match=message):
        jax.eval_shape(lambda arrays, own, name=name: FUNCTIONS[name](*arrays, **own, **keywords), arrays, own)


def test_a_queue_on_the_ring_divides_too():
  arrays, own = make_inputs(8, 12)["info_nce"]
  with on("8"), pytest.raises(UserError, match="12 columns on 8 devices"):
    jax.eval_shape(lambda *arrays: contrastive.info_nce(*arrays, **own, pairs="ring"), *arrays)


@pytest.mark.parametrize("pairs", ["dense", "gather", "ring"])
def test_every_product_is_exact(pairs):
  """Accelerators round operands unless told not to; a CPU would not show it."""
  inputs = make_inputs()
  products = str(jax.make_jaxpr(lambda inputs: every_loss(pairs, inputs))(inputs)).split("dot_general[")[1:]
  assert len(products) >= 12 and all("HIGHEST" in product.split("preferred_element_type")[0] for product in products)
