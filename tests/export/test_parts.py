"""Networks out of a state and back: which weights, whose statistics, and copies made anew."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from ssljax import build, transforms, tree
from ssljax.errors import UserError
from ssljax.export import parts
from ssljax.models.resnet import ResNet
from ssljax.models.vit import ViT
from ssljax.objectives.byol import BYOL
from ssljax.objectives.lwf import LwF
from ssljax.objectives.simclr import SimCLR
from ssljax.types import LossOutput, Objective, Part, TrainState

VIT = {"variant": "Ti", "width": 16, "depth": 2, "heads": 2, "patch": 8, "image_size": 16}
VIEWS = {"views": jnp.zeros((2, 2, 16, 16, 3)), "index": jnp.zeros((2, 2), jnp.uint32), "task": jnp.zeros(2, jnp.int32)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distilled(Objective):
  """A student and its teacher, as self-distillation has them."""

  encoder: nn.Module
  batch_keys = ("image",)

  def parts(self):
    return {"encoder": Part(self.encoder, "encoder", None, teacher="teacher/encoder")}

  def imported(self, params, state):
    return {**state, "teacher": params}

  def init(self, rng, batch):
    params = {"encoder": self.encoder.init(rng, jnp.zeros((1, 16, 16, 3)))["params"]}
    return params, {"teacher": jax.tree.map(lambda x: 3 * x, params), "centre": jnp.ones(4)}

  def loss(self, params, state, batch, *, rng, step):
    return LossOutput(loss=jnp.zeros(()), state=state, metrics={})

  def encode(self, params, state, batch):
    return {"embedding": jnp.zeros((1, 1))}


def state_of(objective, *, average=False):
  """A state whose trained weights are twice those of its average."""
  params, inner = jax.jit(lambda key: objective.init(key, VIEWS))(jax.random.key(0))
  transform = transforms.with_ema(optax.sgd(1.0), decay=0.9) if average else optax.sgd(1.0)
  state = TrainState(jnp.zeros((), jnp.int32), params, transform.init(params), inner, jax.random.key(0))
  return state.replace(params=jax.tree.map(lambda x: 2 * x, params))


KERNEL = "encoder/params/blocks/mlp/fc1/kernel"


def test_the_teacher_is_what_leaves_where_there_is_one():
  objective = Distilled(encoder=ViT(**VIT))
  state = state_of(objective)
  taken = {which: parts.take(objective, state, which) for which in ("auto", "student", "teacher")}
  assert [which for _, which in taken.values()] == ["teacher", "student", "teacher"]
  np.testing.assert_allclose(taken["auto"][0][KERNEL], 1.5 * taken["student"][0][KERNEL], rtol=1e-6)
  with pytest.raises(UserError, match="found ema, but the optimiser kept no moving average"):
    parts.take(objective, state, "ema")


def test_what_comes_in_goes_to_the_copies_as_the_objective_says():
  objective = Distilled(encoder=ViT(**VIT))
  state = state_of(objective)
  arrays, _ = parts.take(objective, state, "student")
  moved = {name: array + 1 for name, array in arrays.items()}
  back = parts.put(objective, state, moved)
  for which in ("student", "teacher"):
    found, _ = parts.take(objective, back, which)
    assert all(np.array_equal(found[name], moved[name]) for name in moved)
  np.testing.assert_array_equal(back.objective_state["centre"], 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Averaged(BYOL):
  """BYOL whose teacher is what is used."""

  def parts(self):
    paths = {"teacher": "teacher/encoder", "teacher_state": "teacher_stats/encoder"}
    return {name: part._replace(**paths) for name, part in super().parts().items()}


def numbered(tree_, numbers):
  """The tree with each leaf full of the number of the first prefix its path begins with, else of 1."""
  number = lambda name: next((n for prefix, n in numbers.items() if name.startswith(prefix)), 1)
  return tree.map_named(lambda name, leaf: np.full(leaf.shape, number(name), leaf.dtype), tree_)


@pytest.mark.parametrize("prefix", ["", "objective/"])
def test_a_teacher_leaves_with_its_own_statistics_also_inside_of_another_objective(prefix):
  objective = Averaged(encoder=ResNet(18, stem="cifar"), projector_hidden=4, projector_out=4)
  objective = LwF(objective=objective) if prefix else objective
  params, inner = jax.eval_shape(lambda: objective.init(jax.random.key(0), VIEWS))
  inner = numbered(inner, {f"{prefix}teacher/": 3, f"{prefix}teacher_stats/": 4, f"{prefix}stats/": 2})
  state = TrainState(np.zeros((), np.int32), numbered(params, {}), (), inner, jax.random.key(0))
  for weights, which, kernel, mean in (("auto", "teacher", 3, 4), ("student", "student", 1, 2)):
    arrays, taken = parts.take(objective, state, weights)
    assert taken == which
    assert (arrays["encoder/params/conv1/kernel"] == kernel).all()
    assert (arrays["encoder/batch_stats/bn1/mean"] == mean).all()


def test_statistics_go_with_their_network_also_inside_of_another_objective():
  simclr = SimCLR(encoder=ResNet(18, stem="cifar"), projector_out=4)
  for objective, prefix in ((simclr, ""), (LwF(objective=simclr), "objective/")):
    state = state_of(objective, average=True)
    arrays, which = parts.take(objective, state, "auto")
    assert which == "ema" and {name.split("/")[1] for name in arrays} == {"params", "batch_stats"}
    student, _ = parts.take(objective, state, "student")
    kernel = "encoder/params/conv1/kernel"
    np.testing.assert_array_equal(student[kernel], 2 * arrays[kernel])
    like = jax.eval_shape(lambda s=state: s)
    assert {name: array.shape for name, array in arrays.items()} == parts.shapes(objective, like)
    moved = {name: array + 1 for name, array in arrays.items() if name.startswith("encoder/")}
    back = parts.put(objective, state, moved)
    leaves = dict(tree.named_leaves(back.objective_state))
    np.testing.assert_array_equal(leaves[f"{prefix}encoder/bn1/mean"], moved["encoder/batch_stats/bn1/mean"])
    if prefix:  # the model before today's is the one that came in
      np.testing.assert_array_equal(leaves["previous/encoder/conv1/kernel"], moved[kernel])
      np.testing.assert_array_equal(leaves["previous_state/encoder/bn1/var"], moved["encoder/batch_stats/bn1/var"])


def test_networks_are_compared_in_float32_and_whole():
  section = {"name": "simclr.SimCLR", "encoder": {"name": "vit.ViT", **VIT, "dtype": "bfloat16", "remat": "full"}}
  objective = build.build(section, "objectives", where="objective")
  encoder = parts.modules_of(objective)["encoder"]
  assert (encoder.dtype, encoder.remat, encoder.size.width) == ("float32", "none", 16)
