"""CTP: how the momentum model moves, what is contrasted with it, when the topology counts, and what does not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.build import build
from ssljax.errors import UserError
from ssljax.losses.distillation import topology_losses
from ssljax.models.dual import DualEncoder, Tower
from ssljax.models.text_tower import TextTower
from ssljax.models.vit import ViT
from ssljax.objectives.clip import CLIP
from ssljax.objectives.ctp import CTP

BATCH, SIZE, QUEUE = 6, 8, 10
VIT = ViT(width=8, depth=1, heads=2, patch=4, image_size=SIZE)
TEXT = TextTower(vocab_size=20, length=5, width=8, depth=1, heads=2)
MODEL = DualEncoder(image=Tower(encoder=VIT, width=4), text=Tower(encoder=TEXT, width=4))
KEY = jax.random.key(7)
OBJECTIVE = CTP(objective=CLIP(model=MODEL), weight=2.0, queue=QUEUE)


def make_batch(seed, task):
  rng = np.random.default_rng(seed)
  return {
    "image": jnp.asarray(rng.normal(size=(BATCH, SIZE, SIZE, 3)), jnp.float32),
    "text": jnp.asarray(rng.integers(0, 20, (BATCH, 5)), jnp.int32),
    "index": jnp.asarray(np.stack([np.zeros(BATCH), np.arange(BATCH)], axis=1), jnp.uint32),
    "task": jnp.full(BATCH, task, jnp.int32).at[0].set(0),  # one replayed row
  }


def moved(params, seed):
  draw = np.random.default_rng(seed).normal
  return jax.tree.map(lambda x: x + 0.3 * jnp.asarray(draw(size=x.shape), jnp.float32), params)


@pytest.fixture(scope="module")
def steps():
  """(params, batch, state before, output) of five steps, each with other parameters; the last two are task 1."""
  run = jax.jit(lambda p, s, b: OBJECTIVE.loss(p, s, b, rng=KEY, step=0))
  params, state = jax.jit(OBJECTIVE.init)(KEY, make_batch(0, 0))
  found = []
  for step, task in enumerate([0, 0, 0, 1, 1]):
    params, batch = moved(params, step), make_batch(step, task)
    out = run(params, state, batch)
    found.append((params, batch, state, out))
    state = out.state
  return found


def close(found, expected, rtol=1e-4, atol=1e-5):
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), found, expected)


def test_the_momentum_model_follows_todays_and_from_task_1_on_also_the_one_before(steps):
  for number, (params, _, before, out) in enumerate(steps):
    if number < 3:
      expected = jax.tree.map(lambda m, f: 0.995 * m + 0.005 * f, before["momentum"], params)
    else:
      reference = steps[3][0]  # as it was when the task began, before it learnt from it
      close(out.state["previous"], reference, rtol=0, atol=0)
      expected = jax.tree.map(lambda m, f, r: 0.9 * m + 0.05 * f + 0.05 * r, before["momentum"], params, reference)
    close(out.state["momentum"], expected)
    assert int(out.state["task"]) == (number > 2)


def features(params, batch):
  found = jax.jit(OBJECTIVE.objective.encode)(params, {}, batch)
  return [np.asarray(found[f"{key}_features"], np.float64) for key in ("image", "text")]


def test_the_loss_is_the_sum_of_the_objectives_contrast_and_topology(steps):
  for number in (2, 4):
    params, batch, before, out = steps[number]
    image, text = features(params, batch)
    image_key, text_key = features(out.state["momentum"], batch)
    nats = []
    for query, key, queue in ((image, text_key, "text"), (text, image_key, "image")):
      logits = query @ np.concatenate([key, before["queue"][queue]]).T / 0.07
      nats.append(np.log(np.exp(logits).sum(axis=1)) - np.diag(logits))
    assert float(out.metrics["ctp/contrast"]) == pytest.approx(np.mean(nats), rel=1e-4)
    inner = jax.jit(lambda p, b: OBJECTIVE.objective.loss(p, {}, b, rng=KEY, step=0).loss)
    expected = float(inner(params, batch)) + np.mean(nats)
    topology = [float(out.metrics[f"ctp/{name}"]) for name in ("cross", "same")]
    if number == 2:
      assert topology == [0, 0]
    else:
      reference = features(out.state["previous"], batch)
      slow = topology_losses(*map(jnp.float32, [image, text, *reference]), temperature=0.07)
      np.testing.assert_allclose(topology, slow, rtol=1e-3)
      assert min(topology) > 1e-3
    assert float(out.loss) == pytest.approx(expected + 2 * sum(topology), rel=1e-4)


def test_the_queue_holds_the_newest_keys_first(steps):
  params, batch, before, out = steps[1]
  del params
  image, text = features(out.state["momentum"], batch)
  for key, name in ((image, "image"), (text, "text")):
    queue = out.state["queue"][name]
    close(queue[:BATCH], key, rtol=1e-3)
    close(queue[BATCH:], before["queue"][name][: QUEUE - BATCH])
    np.testing.assert_allclose(np.linalg.norm(queue, axis=1), 1, rtol=1e-5)


def test_a_task_begins_with_no_topology_lost(steps):
  """The model before is today's then."""
  assert max(abs(float(steps[3][3].metrics[f"ctp/{name}"])) for name in ("cross", "same")) < 1e-5


def test_what_comes_in_is_all_three_models(steps):
  params, state = steps[1][0], steps[4][3].state
  made = OBJECTIVE.imported(params, state)
  close((made["previous"], made["momentum"]), (params, params), rtol=0, atol=0)
  assert jax.tree.structure(made) == jax.tree.structure(state)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(momentum=1.5), "ctp.CTP: momentum 1.5, expected a number from 0 to 1"),
    (dict(first_momentum=-1), "ctp.CTP: first_momentum -1, expected"),
    (dict(temperature=0), "ctp.CTP: temperature 0, expected more than 0"),
    (dict(weight=-1), "ctp.CTP: weight -1, expected a finite number"),
    (dict(queue=0), "ctp.CTP: queue 0, expected at least 1"),
    (dict(objective=OBJECTIVE), "ctp.CTP: objective CTP, expected clip.CLIP or clip.SigLIP"),
  ],
)
def test_bad_fields_are_named(options, message):
  with pytest.raises(UserError, match=message):
    CTP(**{"objective": OBJECTIVE.objective, **options})


def test_sections_nest_and_the_objectives_keys_are_asked_for():
  tower = lambda encoder: dict(name="dual.Tower", encoder=encoder, width=6)
  image, text = dict(name="vit.ViT", variant="Ti"), dict(name="text_tower.TextTower", vocab_size=20)
  model = dict(name="dual.DualEncoder", image=tower(image), text=tower(text), initial_bias=-10)
  section = dict(name="ctp.CTP", objective=dict(name="clip.SigLIP", model=model), weight=0.5)
  objective = build(section, "objectives", where="objective")
  assert objective.batch_keys == ("image", "text", "task") and objective.couples_examples
  with pytest.raises(UserError, match=r"objective\.objective\.model\.text\.encoder\.vocab_size: found 20"):
    objective.check_texts(size=30, end=29)
  assert objective.parts()["model"].state == "objective" and objective.pairs == "dense"
