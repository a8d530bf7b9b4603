import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from ssljax import sharding
from ssljax.build import build
from ssljax.errors import UserError
from ssljax.losses.contrastive import nt_xent
from ssljax.models.layers import BatchNorm
from ssljax.models.resnet import ResNet
from ssljax.models.vit import ViT
from ssljax.objectives.simclr import SimCLR
from ssljax.schedules import linear

BATCH, SIZE = 8, 8
VIT = ViT(width=16, depth=1, heads=2, patch=4, image_size=SIZE)
KEY = jax.random.key(7)


def make_batch(seed=0, count=BATCH, size=SIZE):
  views = np.random.default_rng(seed).normal(size=(count, 2, size, size, 3))
  index = np.stack([np.zeros(count), np.arange(count)], axis=1)
  return {"views": jnp.asarray(views, jnp.float32), "index": jnp.asarray(index, jnp.uint32)}


def compiled(objective):
  """Parameters, state, and loss(params, state, batch, step) of an objective."""
  params, state = jax.jit(objective.init)(jax.random.key(0), make_batch())
  run = lambda params, state, batch, step: objective.loss(params, state, batch, rng=KEY, step=step)
  return params, state, jax.jit(run)


@pytest.fixture(scope="module")
def tiny():
  objective = SimCLR(encoder=VIT, projector_out=8, projector_layers=2, temperature=0.2)
  return objective, *compiled(objective)


def test_loss_is_nt_xent_of_the_projections(tiny):
  objective, params, state, loss = tiny
  batch = make_batch()
  out = loss(params, state, batch, 0)

  def written_out(views):
    embedding = VIT.apply({"params": params["encoder"]}, jnp.concatenate([views[:, 0], views[:, 1]]))["embedding"]
    variables = {"params": params["projector"], "batch_stats": state["projector"]}
    z, changed = objective.projector.apply(variables, embedding, train=True, mutable=["batch_stats"])
    return nt_xent(z[:BATCH], z[BATCH:], temperature=0.2), changed

  expected, changed = jax.jit(written_out)(batch["views"])
  assert float(out.loss) == pytest.approx(float(expected), rel=1e-4)
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
  jax.tree.map(close, out.state, {"encoder": {}, "projector": changed["batch_stats"]})


def test_equal_views_are_partners_and_shuffled_views_are_not(tiny):
  _, params, state, loss = tiny
  batch = make_batch()
  equal = batch | {"views": jnp.repeat(batch["views"][:, :1], 2, axis=1)}
  metrics = loss(params, state, equal, 0).metrics
  assert float(metrics["contrastive/accuracy"]) == 1
  assert float(metrics["contrastive/positive_cosine"]) == pytest.approx(1, abs=1e-5)
  shuffled = batch | {"views": jnp.stack([equal["views"][:, 0], jnp.roll(equal["views"][:, 1], 1, axis=0)], axis=1)}
  assert float(loss(params, state, shuffled, 0).metrics["contrastive/accuracy"]) == 0


def test_views_may_be_swapped(tiny):
  _, params, state, loss = tiny
  batch = make_batch()
  swapped = loss(params, state, batch | {"views": batch["views"][:, ::-1]}, 0).loss
  assert float(swapped) == pytest.approx(float(loss(params, state, batch, 0).loss), rel=1e-5)


def test_the_way_of_the_pairs_changes_nothing(tiny):
  """One step on eight devices, one example on each; the default is the dense matrix on one device."""
  objective, params, state, _ = tiny
  batch = make_batch()

  def step(pairs, params, batch):
    def loss(params):
      out = dataclasses.replace(objective, pairs=pairs).loss(params, state, batch, rng=KEY, step=0)
      return out.loss, out

    (_, out), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    return out, gradients

  run = jax.jit(step, static_argnums=0)
  expected, expected_gradients = run("dense", params, batch)
  with jax.set_mesh(sharding.make_mesh()):
    placed = jax.device_put(batch, sharding.batch_sharding(jax.sharding.get_mesh()))
    spread = run.lower("ring", params, placed).compile()
    out, gradients = spread(params, placed)
  assert "collective-permute" in spread.as_text()
  assert objective.pairs == "dense" and 0 < float(expected.metrics["contrastive/accuracy"]) < 1
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
  jax.tree.map(close, (out, gradients), (expected, expected_gradients))
  assert float(out.loss) == pytest.approx(float(expected.loss), rel=1e-6)


def test_temperature_may_follow_the_step(tiny):
  objective, params, state, at_fixed = tiny
  ramp = linear(peak=0.3, end=0.1, total_steps=4)
  *_, loss = compiled(dataclasses.replace(objective, temperature=ramp))
  expected = float(at_fixed(params, state, make_batch(), 0).loss)
  assert float(loss(params, state, make_batch(), 2).loss) == pytest.approx(expected, rel=1e-5)
  assert float(loss(params, state, make_batch(), 4).loss) != pytest.approx(expected, rel=1e-3)


def test_stochastic_depth_follows_the_position_in_the_stream():
  objective = SimCLR(encoder=VIT.clone(depth=2, drop_path=0.9), projector_out=8, projector_layers=2)
  params, state, loss = compiled(objective)
  batch, order = make_batch(), np.arange(BATCH)[::-1]
  value = float(loss(params, state, batch, 0).loss)
  moved = jax.tree.map(lambda x: x[order], batch)
  assert float(loss(params, state, moved, 0).loss) == pytest.approx(value, rel=1e-4)
  later = batch | {"index": batch["index"] + jnp.uint32(BATCH)}
  assert float(loss(params, state, later, 0).loss) != pytest.approx(value, rel=1e-4)


class Convolution(nn.Module):
  """The smallest encoder with batch statistics."""

  features: int = 6
  dtype: str = "float32"

  @nn.compact
  def __call__(self, images, *, keep=None, keys=None, train=False):
    x = nn.relu(
      BatchNorm(use_running_average=not train, name="bn")(nn.Conv(self.features, (3, 3), name="conv")(images))
    )
    tokens = x.reshape(len(x), -1, self.features)
    return {"embedding": jnp.mean(tokens, axis=1), "tokens": tokens}


def single():
  """Abstract parameters, state and pictures of an objective whose projector has one layer."""
  objective = SimCLR(encoder=VIT, projector_layers=1)
  return *jax.eval_shape(objective.init, KEY, make_batch()), {"image": make_batch()["views"][:, 0]}


def test_an_encoder_with_batch_statistics_moves_them_and_encodes_with_the_running_ones():
  objective = SimCLR(encoder=Convolution(), projector_out=8, projector_layers=2)
  params, state, loss = compiled(objective)
  batch = make_batch()
  after = loss(params, state, batch, 0).state

  images = batch["views"].reshape(-1, SIZE, SIZE, 3)  # both views at once
  hidden = nn.Conv(6, (3, 3)).apply({"params": params["encoder"]["conv"]}, images)
  expected = 0.1 * np.mean(hidden, axis=(0, 1, 2))
  np.testing.assert_allclose(after["encoder"]["bn"]["mean"], expected, rtol=1e-4, atol=1e-6)

  encode = jax.jit(objective.encode)
  images = batch["views"][:, 0]
  old, new = (encode(params, chosen, {"image": images}) for chosen in (state, after))
  assert old["embedding"].shape == (BATCH, 6) and old["projection"].shape == (BATCH, 8)
  assert float(jnp.abs(old["embedding"] - new["embedding"]).max()) > 1e-3
  kernel, norm = params["projector"]["fc1"]["kernel"], after["projector"]["bn1"]
  hidden = (new["embedding"] @ kernel - norm["mean"]) / np.sqrt(norm["var"] + 1e-5)  # its norm starts at scale 1
  np.testing.assert_allclose(new["hidden"], np.maximum(hidden, 0), rtol=1e-3, atol=1e-5)
  assert "hidden" not in jax.eval_shape(SimCLR(encoder=VIT, projector_layers=1).encode, *single())
  alone = encode(params, state, {"image": images.at[1:].set(0.0)})
  np.testing.assert_allclose(alone["projection"][0], old["projection"][0], rtol=1e-4, atol=1e-5)


def test_resnet_fits():
  objective = SimCLR(encoder=ResNet(depth=18, stem="cifar"))
  params, state = jax.eval_shape(objective.init, jax.random.key(0), make_batch())
  out = jax.eval_shape(lambda *args: objective.loss(*args, rng=KEY, step=0), params, state, make_batch())
  assert params["projector"]["fc1"]["kernel"].shape == (512, 512) and out.loss.shape == ()
  assert out.state == state and "bn1" in state["encoder"]


@pytest.mark.parametrize(
  ("keys", "message"),
  [
    (dict(temperature=0.0), "temperature 0.0, expected more than 0"),
    (dict(temperature=-1), "temperature -1, expected more than 0"),
    (dict(temperature=float("nan")), "temperature nan"),
    (dict(projector_layers=0), "projector_layers 0, expected at least 1"),
    (dict(projector_out=0), "projector_out 0"),
    (dict(projector_hidden=0), "projector_hidden 0"),
    (dict(pairs="rings"), r"pairs rings \(did you mean ring\? valid: dense, gather, ring\)"),
  ],
)
def test_bad_fields_are_named(keys, message):
  with pytest.raises(UserError, match=f"simclr.SimCLR: {message}"):
    SimCLR(encoder=VIT, **keys)


@pytest.mark.parametrize(("shape", "message"), [((1, 2), "batch of 1"), ((8, 1), "1 views"), ((8, 3), "3 views")])
def test_bad_batches_are_named(shape, message):
  batch = {"views": jnp.zeros((*shape, SIZE, SIZE, 3)), "index": jnp.zeros((shape[0], 2), jnp.uint32)}
  with pytest.raises(UserError, match=message):
    SimCLR(encoder=VIT).init(jax.random.key(0), batch)


def test_built_from_a_config_section():
  encoder = dict(name="resnet.ResNet", depth=18)
  section = dict(
    name="simclr.SimCLR", encoder=encoder, projector_hidden=64, temperature=dict(name="constant", value=0.5)
  )
  objective = build(section, "objectives", where="objective")
  assert isinstance(objective.encoder, ResNet) and objective.projector.hidden == 64
