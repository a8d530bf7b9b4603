"""MoCo: one step by hand with groups, the queue over several steps, and what does not fit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from siamese_by_hand import BATCH, KEY, Pixels, branch, check_gradient, close, make_batch, started, unit, wide

from ssljax.errors import UserError
from ssljax.models.vit import ViT
from ssljax.objectives.moco import MoCo

QUEUE, DECAY, TEMPERATURE = 16, 0.9, 0.3
OBJECTIVE = MoCo(encoder=Pixels(), projector_out=4, queue=QUEUE, temperature=TEMPERATURE, decay=DECAY, groups=2)
BLOCKS = [[0, 1, 2, 3], [4, 5, 6, 7]]
STRIDES = [[0, 2, 4, 6], [1, 3, 5, 7]]


@pytest.fixture(scope="module")
def tiny():
  params, state, step = started(OBJECTIVE)
  return params, state, step, step(params, state, make_batch(), 0)


def by_hand(params, state, views, keys=None):
  """Loss, next state and keys; the teacher moves first. `keys` given stay as they are."""
  held = {name: params[name] for name in ("encoder", "projector")}
  teacher = jax.tree.map(lambda t, s: DECAY * t + (1 - DECAY) * s, state["teacher"], held)
  seen, stats = branch(params, state["stats"], views[:, 0], groups=BLOCKS)
  known, teacher_stats = branch(teacher, state["teacher_stats"], views[:, 1], groups=STRIDES)
  query, queue = unit(seen["projector"]), unit(state["queue"])
  keys = unit(known["projector"]) if keys is None else keys
  loss = 0.0
  for q, k in zip(query, keys, strict=True):
    logits = np.array([q @ k, *(q @ other for other in queue)]) / TEMPERATURE
    loss += (np.log(np.sum(np.exp(logits))) - logits[0]) / len(query)
  queue = np.concatenate([keys, state["queue"]])[:QUEUE]
  moved = {"stats": stats, "teacher": teacher, "teacher_stats": teacher_stats, "queue": queue}
  return loss, moved, keys


def test_one_step_by_hand(tiny):
  params, state, _, ((loss, out), gradients) = tiny
  views = make_batch()["views"]
  expected, moved, keys = by_hand(wide(params), wide(state), views)
  assert float(loss) == pytest.approx(expected, rel=1e-4)
  close(out.state, moved)
  check_gradient(gradients, lambda p: by_hand(p, wide(state), views, keys)[0], params)


def test_the_queue_is_first_in_first_out(tiny):
  """Keys of a batch are no negatives of their own, and leave after as many batches as the queue holds."""
  params, state, step, _ = tiny
  seen = []
  for number in range(3):
    (_, out), _ = step(params, state, make_batch(number), number)
    np.testing.assert_allclose(np.linalg.norm(out.state["queue"][:BATCH], axis=1), 1, rtol=1e-5)
    seen.append(np.asarray(out.state["queue"][:BATCH]))
    state = out.state
  np.testing.assert_array_equal(state["queue"], np.concatenate([seen[2], seen[1]]))
  after = OBJECTIVE.post_update(params, state, step=3)
  assert after[1] is state


def test_the_first_version_has_a_linear_head_and_the_second_no_normalisation():
  shapes = lambda layers: jax.eval_shape(
    dataclasses.replace(OBJECTIVE, projector_layers=layers).init, KEY, make_batch()
  )[0]["projector"]
  sizes = lambda tree: jax.tree.map(lambda x: x.shape, tree)
  assert sizes(shapes(1)) == {"fc1": {"kernel": (6, 4), "bias": (4,)}}
  assert sizes(shapes(2)) == {"fc1": {"kernel": (6, 6), "bias": (6,)}, "fc2": {"kernel": (6, 4), "bias": (4,)}}


def test_the_teacher_begins_as_the_student_and_does_so_again_after_an_import(tiny):
  params, state, _, _ = tiny
  fresh, begun = jax.jit(OBJECTIVE.init)(KEY, make_batch())
  jax.tree.map(np.testing.assert_array_equal, begun["teacher"], fresh)
  again = OBJECTIVE.imported(params, state)
  jax.tree.map(np.testing.assert_array_equal, again["teacher"], params)
  jax.tree.map(np.testing.assert_array_equal, again["teacher_stats"], state["stats"])
  np.testing.assert_array_equal(again["queue"], state["queue"])


def test_encoding_is_the_students_and_knows_no_groups(tiny):
  params, state, _, _ = tiny
  images = make_batch()["views"][:, 0]
  encode = jax.jit(OBJECTIVE.encode)
  found = encode(params, state, {"image": images[:3]})
  own, stats = wide(params)["encoder"], wide(state)["stats"]["encoder"]["bn1"]
  x = np.float64(images[:3]).reshape(3, -1) @ own["fc1"]["kernel"]
  x = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * own["bn1"]["scale"] + own["bn1"]["bias"]
  close(found["embedding"], np.maximum(x, 0))


@pytest.mark.parametrize(
  ("keys", "message"),
  [
    (dict(temperature=0.0), "temperature 0.0, expected more than 0"),
    (dict(decay=1.5), "decay 1.5, expected a number from 0 to 1"),
    (dict(queue=0), "queue 0, expected at least 1"),
    (dict(projector_layers=0), "projector_layers 0"),
    (dict(pairs="rings"), "pairs rings"),
    (dict(groups=2, encoder=ViT(width=16, depth=1, heads=2)), "groups 2, expected 1: ViT has no statistics of groups"),
  ],
)
def test_bad_fields_are_named(keys, message):
  with pytest.raises(UserError, match=f"moco.MoCo: {message}"):
    MoCo(**dict(encoder=Pixels()) | keys)


@pytest.mark.parametrize(
  ("queue", "groups", "count", "views", "message"),
  [
    (20, 1, 8, 2, "queue 20 is not a multiple of the batch of 8"),
    (20, 1, 5, 3, "3 views of an image, expected 2"),
    (20, 1, 1, 2, "batch of 1, expected at least 2"),
    (24, 3, 8, 2, "3 groups of a batch of 8"),
  ],
)
def test_bad_batches_are_named(queue, groups, count, views, message):
  objective = MoCo(encoder=Pixels(), queue=queue, groups=groups)
  like = {"views": jnp.zeros((count, views, 2, 2, 3)), "index": jnp.zeros((count, 2), jnp.uint32)}
  with pytest.raises(UserError, match=message):
    objective.init(KEY, like)
