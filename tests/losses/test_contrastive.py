import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from slow_contrastive import slow_accuracy, slow_info_nce, slow_nats, slow_nt_xent, slow_sigmoid, slow_softmax

from ssljax import sharding
from ssljax.losses import contrastive
from ssljax.losses.contrastive import l2_normalize, nt_xent_logits

nt_xent, info_nce = jax.jit(contrastive.nt_xent), jax.jit(contrastive.info_nce)
RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(16, 5)), RNG.normal(size=(16, 5))
QUEUE = RNG.normal(size=(24, 5))


def sines(n, d, offset=1.0, function=np.sin):
  return function(np.arange(n * d) + offset).reshape(n, d)


def f32(*arrays):
  return tuple(jnp.asarray(x, jnp.float32) for x in arrays)


@jax.jit
def softmax(image, text, *, temperature):
  return contrastive.softmax_loss(image, text, scale=1 / temperature)


@jax.jit
def weighted(image, text, *, temperature):
  return contrastive.softmax_loss(image, text, scale=1 / temperature, image_weight=0.75)


@jax.jit
def sigmoid(image, text, *, temperature):
  return contrastive.sigmoid_loss(image, text, scale=1 / temperature, bias=-1.5)


LOSSES = {
  "nt_xent": (nt_xent, slow_nt_xent, (A, B)),
  "info_nce": (info_nce, slow_info_nce, (A, B, QUEUE)),
  "softmax": (softmax, lambda a, b, temperature: slow_softmax(a, b, 1 / temperature), (A, B)),
  "weighted": (weighted, lambda a, b, temperature: slow_softmax(a, b, 1 / temperature, 0.75), (A, B)),
  "sigmoid": (sigmoid, lambda a, b, temperature: slow_sigmoid(a, b, 1 / temperature, -1.5), (A, B)),
}
each_loss = pytest.mark.parametrize(("loss", "slow", "inputs"), LOSSES.values(), ids=LOSSES)


def test_nt_xent_is_half_of_the_released_code():
  z1, z2 = sines(4, 3), sines(4, 3, 1.5, np.cos)
  assert float(nt_xent(*f32(z1, z2), temperature=0.5)) == pytest.approx(7.2749222418 / 2, rel=1e-5)


def test_info_nce_equals_moco():
  z1, z2, queue = sines(4, 3), sines(4, 3, 1.5, np.cos), sines(5, 3, 20.0)
  assert float(info_nce(*f32(z1, z2, queue), temperature=0.07)) == pytest.approx(22.1400824387, rel=1e-5)


@each_loss
@pytest.mark.parametrize("temperature", [0.05, 0.5, 1.0])
def test_equals_the_formula(loss, slow, inputs, temperature):
  assert float(loss(*f32(*inputs), temperature=temperature)) == pytest.approx(slow(*inputs, temperature), rel=1e-5)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_equal_embeddings_give_the_logarithm_of_the_choices(size):
  same = jnp.ones((size, 3))
  assert float(nt_xent(same, same, temperature=0.1)) == pytest.approx(np.log(2 * size - 1), abs=2e-6)
  assert float(info_nce(same, same, jnp.ones((9, 3)), temperature=0.1)) == pytest.approx(np.log(10), abs=2e-6)


def test_orthogonal_pairs_have_a_closed_form():
  eye = jnp.eye(6)
  expected = np.log(np.exp(1 / 0.2) + 2 * 5) - 1 / 0.2
  assert float(nt_xent(eye, eye, temperature=0.2)) == pytest.approx(expected, rel=1e-4)


@each_loss
def test_does_not_see_order_rotation_or_length(loss, slow, inputs):
  del slow
  expected = float(loss(*f32(*inputs), temperature=0.2))
  order, rotation = RNG.permutation(16), np.linalg.qr(RNG.normal(size=(5, 5)))[0]
  permuted = (*(x[order] for x in inputs[:2]), *(x[::-1] for x in inputs[2:]))
  rotated = tuple(x @ rotation for x in inputs)
  longer = tuple(x * RNG.uniform(0.1, 10, size=(len(x), 1)) for x in inputs)
  for changed in (permuted, rotated, longer):
    assert float(loss(*f32(*changed), temperature=0.2)) == pytest.approx(expected, rel=1e-5)
  assert float(loss(*f32(inputs[0], inputs[1][order], *inputs[2:]), temperature=0.2)) != pytest.approx(
    expected, rel=1e-3
  )


def test_nt_xent_is_symmetric_in_the_views():
  a, b = f32(A, B)
  assert float(nt_xent(a, b, temperature=0.2)) == pytest.approx(float(nt_xent(b, a, temperature=0.2)), rel=1e-6)


@each_loss
def test_gradient_equals_finite_differences(loss, slow, inputs):
  gradients = jax.jit(jax.grad(lambda xs: loss(*xs, temperature=0.3)))(f32(*inputs))
  for which, gradient in enumerate(gradients):
    for place in [(0, 0), (3, 2), (15, 4)]:
      bump = np.zeros_like(inputs[which])
      bump[place] = 1e-5
      up = slow(*(x + bump if i == which else x for i, x in enumerate(inputs)), 0.3)
      down = slow(*(x - bump if i == which else x for i, x in enumerate(inputs)), 0.3)
      assert float(gradient[place]) == pytest.approx((up - down) / 2e-5, rel=1e-3, abs=1e-6)


@each_loss
@pytest.mark.parametrize("scale", [0.0, 1e-4, 1e4])
def test_extreme_embeddings_and_temperatures_stay_finite(loss, slow, inputs, scale):
  del slow
  function = jax.jit(jax.value_and_grad(lambda xs: loss(*xs, temperature=1e-3)))
  value, gradients = function(f32(*(scale * x for x in inputs)))
  assert bool(jnp.isfinite(value)) and all(bool(jnp.isfinite(g).all()) for g in gradients)


@each_loss
def test_half_precision_inputs_are_computed_in_float32(loss, slow, inputs):
  halves = tuple(jnp.asarray(x, jnp.bfloat16) for x in inputs)
  value = loss(*halves, temperature=0.2)
  exact = slow(*(np.asarray(x.astype(jnp.float32), np.float64) for x in halves), 0.2)
  assert value.dtype == jnp.float32 and float(value) == pytest.approx(exact, rel=1e-5)


@each_loss
def test_eight_devices_equal_one_with_no_exchange_of_rows(loss, slow, inputs):
  del slow
  function = jax.jit(jax.value_and_grad(lambda xs: loss(*xs, temperature=0.2)))
  value, gradients = function(f32(*inputs))
  mesh = sharding.make_mesh()
  places = (sharding.batch_sharding(mesh),) * 2 + (NamedSharding(mesh, PartitionSpec()),)
  with jax.set_mesh(mesh):
    placed = tuple(jax.device_put(x, place) for x, place in zip(f32(*inputs), places, strict=False))
    compiled = function.lower(placed).compile()
    spread, spread_gradients = compiled(placed)
  assert float(spread) == pytest.approx(float(value), rel=1e-6)
  for found, expected in zip(spread_gradients, gradients, strict=True):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
  text = compiled.as_text()
  assert "all-to-all" not in text and "collective-permute" not in text
  assert text.count(" all-gather(") <= 2


def test_equal_texts_leave_the_softmax_all_choices_and_the_sigmoid_one_term_a_pair():
  same = jnp.ones((7, 3))
  assert float(softmax(same, same, temperature=0.1)) == pytest.approx(np.log(7), abs=2e-6)
  found = float(contrastive.sigmoid_loss(same, same, scale=10.0, bias=-10.0))
  assert found == pytest.approx(7 * np.log(2), rel=1e-5)  # all logits are 0


def test_each_query_is_compared_with_every_key_whatever_their_lengths():
  keys = np.concatenate([B, QUEUE])
  found = contrastive.in_batch_nats(*f32(A, keys), scale=0.7)
  np.testing.assert_allclose(found, slow_nats(A, keys, 0.7), rtol=1e-5, atol=1e-6)
  longer = contrastive.in_batch_nats(*f32(2 * A, keys), scale=0.35)
  np.testing.assert_allclose(longer, found, rtol=1e-5, atol=1e-6)


def test_accuracy_is_the_share_of_partners_nothing_comes_before():
  a, b = np.eye(6), np.eye(6)
  b[0] = b[1]  # the partner of a_0 is at right angles, b_0 is equal to a_1 and to b_1
  loss, accuracy = contrastive.nt_xent_and_accuracy(*f32(a, b), temperature=0.5)
  assert float(loss) == pytest.approx(slow_nt_xent(a, b, 0.5), rel=1e-5)
  assert float(accuracy) == pytest.approx(slow_accuracy(a, b)) and 0 < float(accuracy) < 1


def test_logits_have_the_positive_at_the_neighbour():
  a, b = f32(A, A + 1e-3)
  logits = nt_xent_logits(a, b, temperature=0.5)
  np.testing.assert_array_equal(jnp.argmax(logits, axis=1), np.arange(32) ^ 1)
  assert bool(jnp.all(jnp.isneginf(jnp.diag(logits)))) and int(jnp.isinf(logits).sum()) == 32


def test_l2_normalize():
  found = l2_normalize(jnp.asarray([[3.0, 4.0], [0.0, 0.0]]))
  np.testing.assert_allclose(found, [[0.6, 0.8], [0.0, 0.0]], rtol=1e-6)
