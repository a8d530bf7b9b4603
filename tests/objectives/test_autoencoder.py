"""The denoising autoencoder against NumPy and SciPy, what its noise depends on, that it learns, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import signal

from ssljax.errors import UserError
from ssljax.models.conv_autoencoder import ConvEncoder
from ssljax.models.resnet import ResNet
from ssljax.objectives.autoencoder import DenoisingAutoencoder

SIZE = 8


def batch(count=4, size=SIZE):
  images = np.random.default_rng(0).uniform(size=(count, size, size, 3))
  index = np.stack([np.zeros(count), np.arange(count)], axis=1)
  return {"image": jnp.asarray(images, jnp.float32), "index": jnp.asarray(index, jnp.uint32)}


@pytest.fixture(scope="module")
def tiny():
  objective = DenoisingAutoencoder(encoder=ConvEncoder(widths=(4, 6)), noise=0.1)
  return objective, *jax.jit(objective.init)(jax.random.key(0), batch())


def convolved(image, kernel):
  planes = zip(np.moveaxis(image, -1, 0), np.moveaxis(kernel, 2, 0), strict=True)
  return sum(
    np.stack([signal.correlate2d(x, k[..., o], mode="same") for o in range(k.shape[-1])], axis=-1) for x, k in planes
  )


def blocked(image, params):
  """Convolution, normalisation by running statistics as they start (mean 0, variance 1), ReLU."""
  y = convolved(image, params["conv"]["kernel"]) / np.sqrt(1 + 1e-5)
  return np.maximum(y * params["bn"]["scale"] + params["bn"]["bias"], 0)


def test_numpy_and_scipy_give_the_same(tiny):
  objective, params, state = tiny
  params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  found, _ = objective.reconstruct(params, state, batch()["image"], train=False)
  embedding = objective.encode(params, state, batch())["embedding"]
  for number, x in enumerate(np.asarray(batch()["image"], np.float64)):
    for stage in "01":
      x = blocked(x, params["encoder"][stage])
      x = x.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2, -1).max(axis=(1, 3))
    np.testing.assert_allclose(embedding[number], x.mean(axis=(0, 1)), rtol=1e-5)
    for stage in "01":
      x = blocked(np.kron(x, np.ones((2, 2, 1))), params["decoder"][stage])
    x = convolved(x, params["decoder"]["pixels"]["kernel"]) + params["decoder"]["bias"]
    np.testing.assert_allclose(found[number], x, rtol=1e-4, atol=1e-5)


def test_noise_is_the_examples_own_and_the_target_has_none(tiny):
  objective, params, state = tiny
  data, key = batch(), jax.random.key(1)
  noise = objective.noisy(key, data) - data["image"]
  assert np.std(noise) == pytest.approx(0.1, rel=0.1)
  turned = jax.tree.map(lambda x: x[::-1], data)
  np.testing.assert_array_equal(objective.noisy(key, turned)[::-1], objective.noisy(key, data))
  out = objective.loss(params, state, data, rng=key, step=jnp.int32(0))
  found, moved = objective.reconstruct(params, state, data["image"] + noise, train=True)
  assert float(out.loss) == pytest.approx(np.mean((np.asarray(found) - np.asarray(data["image"])) ** 2), rel=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), out.state, moved)


def test_it_learns_to_give_pictures_back(tiny):
  objective, params, state = tiny
  corners = jnp.linspace(0, 1, SIZE)[:, None] * jnp.linspace(0, 1, SIZE)
  images = jnp.stack([jnp.rot90(corners, turn)[..., None].repeat(3, -1) for turn in range(4)])
  data = {"image": images, "index": batch()["index"]}
  optimizer = optax.adam(1e-2)

  def step(carry, number):
    params, state, moments = carry
    loss = lambda p: (lambda out: (out.loss, out))(
      objective.loss(p, state, data, rng=jax.random.fold_in(jax.random.key(2), number), step=number)
    )
    gradients, out = jax.grad(loss, has_aux=True)(params)
    updates, moments = optimizer.update(gradients, moments)
    explained = out.metrics["autoencoder/explained_variance"]
    return (optax.apply_updates(params, updates), out.state, moments), explained

  start = (params, state, optimizer.init(params))
  (_, explained) = jax.jit(lambda: jax.lax.scan(step, start, jnp.arange(150)))()
  assert explained[0] < 0.2 and np.mean(explained[-10:]) > 0.9


def test_it_shows_what_it_does(tiny):
  objective, params, state = tiny
  shown = objective.show(params, state, batch(), rng=jax.random.key(0))
  (strips,) = shown.values()
  assert strips.shape == (4, 3, SIZE, SIZE, 3)


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: DenoisingAutoencoder(encoder=ResNet()), r"encoder ResNet, expected conv_autoencoder\.ConvEncoder"),
    (lambda: DenoisingAutoencoder(encoder=ConvEncoder(), noise=-1.0), r"noise -1\.0, expected a finite number"),
    (lambda: ConvEncoder(widths=()), r"widths \(\), expected at least one"),
    (
      lambda: DenoisingAutoencoder(encoder=ConvEncoder()).init(jax.random.key(0), batch(size=12)),
      "12 x 12 pixels, expected a multiple of 8",
    ),
    (lambda: ConvEncoder().init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), keep=jnp.zeros(1)), "visible patches"),
  ],
)
def test_bad_input(make, message):
  with pytest.raises(UserError, match=message):
    make()
