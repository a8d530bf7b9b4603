"""RotNet: which way pictures are turned, the loss written out, and that a batch is every picture four times."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.build import build
from ssljax.errors import UserError
from ssljax.models.resnet import ResNet
from ssljax.models.vit import ViT
from ssljax.objectives.rotnet import RotNet, rotations

BATCH, SIZE = 6, 8
VIT = ViT(width=16, depth=1, heads=2, patch=4, image_size=SIZE)
OBJECTIVE = RotNet(encoder=VIT)
KEY = jax.random.key(7)


def make_batch():
  drawn = np.random.default_rng(0).normal(size=(BATCH, SIZE, SIZE, 3))
  index = np.stack([np.zeros(BATCH), np.arange(BATCH)], axis=1)
  return {"image": jnp.asarray(drawn, jnp.float32), "index": jnp.asarray(index, jnp.uint32)}


@pytest.fixture(scope="module")
def tiny():
  """Parameters, state, and the compiled loss of a batch."""
  params, state = jax.jit(OBJECTIVE.init)(jax.random.key(0), make_batch())
  return params, state, jax.jit(lambda p, s, b: OBJECTIVE.loss(p, s, b, rng=KEY, step=0))


def test_turns_are_counter_clockwise():
  picture = jnp.array([[1, 2], [3, 4]])[None, :, :, None]
  expected = [[[1, 2], [3, 4]], [[2, 4], [1, 3]], [[4, 3], [2, 1]], [[3, 1], [4, 2]]]
  np.testing.assert_array_equal(rotations(picture)[0, ..., 0], expected)


def test_the_loss_is_the_cross_entropy_of_all_four_turns(tiny):
  params, state, loss = tiny
  batch = make_batch()
  out = loss(params, state, batch)
  turned = np.concatenate([np.rot90(batch["image"], turn, axes=(1, 2)) for turn in range(4)])  # one turn after another
  encode = jax.jit(lambda images: VIT.apply({"params": params["encoder"]}, images)["embedding"])
  head = params["head"]["fc1"]
  logits = np.float64(encode(turned) @ head["kernel"] + head["bias"])
  turns = np.repeat(np.arange(4), BATCH)
  nats = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(4 * BATCH), turns]
  assert float(out.loss) == pytest.approx(nats.mean(), rel=1e-4)
  assert float(out.metrics["rotnet/accuracy"]) == pytest.approx(np.mean(logits.argmax(axis=1) == turns))
  assert float(out.weight) == 4 * BATCH


def test_who_sees_nothing_guesses_one_in_four(tiny):
  params, state, loss = tiny
  blank = make_batch() | {"image": jnp.zeros((BATCH, SIZE, SIZE, 3))}
  out = loss(params, state, blank)
  assert float(out.metrics["rotnet/accuracy"]) == 0.25
  assert float(loss(params | {"head": jax.tree.map(jnp.zeros_like, params["head"])}, state, blank).loss) == (
    pytest.approx(np.log(4), rel=1e-6)
  )


def test_pictures_that_are_not_square_are_refused():
  with pytest.raises(UserError, match="found images of 8 x 12 pixels, expected square ones"):
    OBJECTIVE.init(KEY, {"image": jnp.zeros((2, 8, 12, 3))})


def test_built_from_a_config_section_with_batch_statistics():
  objective = build(
    dict(name="rotnet.RotNet", encoder=dict(name="resnet.ResNet", depth=18, stem="cifar")), "objectives", where="o"
  )
  batch = make_batch()
  params, state = jax.eval_shape(objective.init, KEY, batch)
  assert params["head"]["fc1"]["kernel"].shape == (512, 4) and "bn1" in state["encoder"]
  assert jax.eval_shape(lambda *a: objective.loss(*a, rng=KEY, step=0), params, state, batch).state == state


def test_batch_normalisation_couples_examples():
  assert RotNet(encoder=ResNet(depth=18)).couples_examples
  assert not RotNet(encoder=ViT(variant="Ti", patch=4, image_size=8)).couples_examples
