"""MoCo v3: the published numbers, one step by hand, and the frozen patch embedding."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from siamese_by_hand import KEY, Pixels, check_gradient, close, each_view, make_batch, started, unit, wide

from ssljax import optim
from ssljax.errors import UserError
from ssljax.models.vit import ViT
from ssljax.objectives.moco_v3 import MoCoV3, contrast
from ssljax.schedules import cosine

DECAY, TEMPERATURE = 0.8, 0.5
OBJECTIVE = MoCoV3(encoder=Pixels(), projector_hidden=5, projector_out=4, temperature=TEMPERATURE, decay=DECAY)


def test_golden_of_the_loss():
  numbers = lambda offset, function: jnp.asarray(function(np.arange(12) + offset).reshape(4, 3), jnp.float32)
  found = contrast(numbers(1, np.sin), numbers(1.5, np.cos), temperature=0.2)
  assert float(found) == pytest.approx(2.3695249641, rel=1e-5)


def test_golden_of_the_decay():
  decay = cosine(peak=0.99, end=1.0, total_steps=100)
  found = [float(decay(step)) for step in (0, 25, 50, 100)]
  assert found == pytest.approx([0.99, 0.99146447, 0.995, 1.0], abs=1e-7)


def by_hand(params, state, views, keys=None):
  """Loss, next state and keys of both views; the teacher moves first. `keys` given stay as they are."""
  held = {name: params[name] for name in ("encoder", "projector")}
  teacher = jax.tree.map(lambda t, s: DECAY * t + (1 - DECAY) * s, state["teacher"], held)
  seen, stats = each_view(params, state["stats"], views)
  known, teacher_stats = each_view(teacher, state["teacher_stats"], views)
  keys = [unit(view["projector"]) for view in known] if keys is None else keys
  loss = 0.0
  for view, others in zip(seen, keys[::-1], strict=True):
    queries = unit(view["predictor"])
    for i, query in enumerate(queries):
      logits = np.array([query @ other for other in others]) / TEMPERATURE
      loss += 2 * TEMPERATURE * (np.log(np.sum(np.exp(logits))) - logits[i]) / len(queries)
  return loss, {"stats": stats, "teacher": teacher, "teacher_stats": teacher_stats}, keys


def test_one_step_by_hand():
  params, state, step = started(OBJECTIVE)
  views = make_batch()["views"]
  (loss, out), gradients = step(params, state, make_batch(), 0)
  expected, moved, keys = by_hand(wide(params), wide(state), views)
  assert float(loss) == pytest.approx(expected, rel=1e-4)
  close(out.state, moved)
  check_gradient(gradients, lambda p: by_hand(p, wide(state), views, keys)[0], params)
  assert OBJECTIVE.post_update(params, out.state, step=0)[1] is out.state


def test_heads_of_both_encoders():
  def norms(objective):
    params, state = jax.eval_shape(objective.init, KEY, make_batch())
    stats = {name: sorted(held) for name, held in state["stats"].items() if name != "encoder"}
    assert "bn3" not in params["projector"] and not any("bias" in layer for layer in params["predictor"]["fc2"])
    return stats

  deep = dict(projector=["bn1", "bn2", "bn3"], predictor=["bn1", "bn2"])
  assert norms(OBJECTIVE) == deep
  resnet = dataclasses.replace(OBJECTIVE, projector_layers=2, predictor_last_norm="none")
  assert norms(resnet) == dict(projector=["bn1", "bn2"], predictor=["bn1"])


def test_the_patch_embedding_stays_as_it_was_drawn():
  """Under the rule that the docstring gives, with the paper's optimiser."""
  vit = ViT(width=8, depth=1, heads=2, patch=2, image_size=2)
  objective = dataclasses.replace(OBJECTIVE, encoder=vit)
  params, _ = jax.eval_shape(objective.init, KEY, make_batch())
  params = jax.tree.map(lambda leaf: np.ones(leaf.shape, "float32"), params)
  transform = optim.adamw(learning_rate=0.1, weight_decay=0.1, lr_multipliers=(("encoder/patch_embed", 0.0),)).transform
  step = lambda p: transform.update(jax.tree.map(jnp.ones_like, p), transform.init(p), p, step=0)[0]
  updates = jax.jit(step)(params)
  frozen = updates["encoder"].pop("patch_embed")
  assert all((leaf == 0).all() for leaf in jax.tree.leaves(frozen))
  assert all((leaf != 0).any() for leaf in jax.tree.leaves(updates))


@pytest.mark.parametrize(
  ("keys", "message"),
  [
    (dict(temperature=-1.0), "temperature -1.0, expected more than 0"),
    (dict(decay=-0.1), "decay -0.1, expected a number from 0 to 1"),
    (dict(projector_hidden=0), "projector_hidden 0, expected at least 1"),
    (dict(pairs="rings"), "pairs rings"),
    (dict(predictor_last_norm="scale"), r"predictor_last_norm scale \(.*plain"),
  ],
)
def test_bad_fields_are_named(keys, message):
  with pytest.raises(UserError, match=f"moco_v3.MoCoV3: {message}"):
    MoCoV3(encoder=Pixels(), **keys)
