"""TIPS: each of its terms written out, the teacher, the two captions, and what does not fit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.build import build
from ssljax.errors import UserError
from ssljax.losses.contrastive import softmax_loss
from ssljax.losses.self_distillation import dino_loss, ibot_loss
from ssljax.models.dual import Tower
from ssljax.models.text_tower import TextTower
from ssljax.models.vit import ViT
from ssljax.objectives.tips import TIPS

BATCH, SIZE = 6, 16
VIT = ViT(width=16, depth=1, heads=2, patch=4, image_size=SIZE, registers=1, mask_token="learnt")
TEXT = Tower(encoder=TextTower(vocab_size=20, length=5, width=12, depth=1, heads=2), width=16)
OBJECTIVE = TIPS(
  encoder=VIT, text=TEXT, captions="two", prototypes=7, head_hidden=12, head_bottleneck=6, distillation=0.5,
  patches=2.0, teacher_temperature=0.2,
)  # fmt: skip
KEY = jax.random.key(7)


def make_batch():
  rng = np.random.default_rng(0)
  pictures = lambda *shape: jnp.asarray(rng.normal(size=(BATCH, *shape, 3)), jnp.float32)
  index = np.stack([np.zeros(BATCH), np.arange(BATCH)], axis=1)
  return {
    "views": pictures(2, SIZE, SIZE),
    "local_views": pictures(3, 8, 8),
    "texts": jnp.asarray(rng.integers(0, 20, (BATCH, 2, 5)), jnp.int32),
    "index": jnp.asarray(index, jnp.uint32),
  }


@pytest.fixture(scope="module")
def tiny():
  """Parameters, a state that has moved, the loss of a batch and the mask it hid."""
  params, state = jax.jit(OBJECTIVE.init)(jax.random.key(0), make_batch())
  draw = np.random.default_rng(1).normal
  moved = lambda x: x + 0.1 * jnp.asarray(draw(size=x.shape), jnp.float32)
  state = jax.tree.map(moved, state)
  out = jax.jit(lambda p, s, b: OBJECTIVE.loss(p, s, b, rng=KEY, step=0))
  return params, state, out(params, state, make_batch())


def test_the_sum_and_each_term_written_out(tiny):
  """View by view and head by head; the masks are the objective's own."""
  params, state, out = tiny
  batch = make_batch()

  def written_out(params, state):
    from ssljax import rng as random

    encode = lambda p, x, mask=None: VIT.apply({"params": p["encoder"]}, x, mask=mask)
    head = lambda p, name, x: OBJECTIVE.head.apply({"params": p[name]}, x)
    mask = OBJECTIVE._mask(batch["views"], random.example_keys(KEY, batch["index"]))
    whole = encode(params, batch["views"][:, 0])
    texts = [TEXT.apply({"params": params["text"]}, batch["texts"][:, i])["projection"] for i in range(2)]
    pairs = [(whole["cls"], texts[0]), (whole["registers"][:, 0], texts[1])]
    contrast = sum(softmax_loss(x, y, scale=jnp.exp(params["logit_scale"])) for x, y in pairs) / 2
    students = [encode(params, batch["views"][:, v], mask[:, v]) for v in range(2)]
    teachers = [encode(state["teacher"], batch["views"][:, v]) for v in range(2)]
    crops = [head(params, "cls_head", s["cls"]) for s in students]
    crops += [head(params, "cls_head", encode(params, batch["local_views"][:, v])["cls"]) for v in range(3)]
    raw = [head(state["teacher"], "cls_head", t["cls"]) for t in teachers]
    targets = [jax.nn.softmax((x - state["cls_center"]) / 0.2) for x in raw]
    dino = dino_loss(jnp.stack(crops, 1), jnp.stack(targets, 1), temperature=0.1)
    patches = [head(state["teacher"], "patch_head", t["tokens"]) for t in teachers]
    targets = [jax.nn.softmax((x - state["patch_center"]) / 0.2) for x in patches]
    hidden = [head(params, "patch_head", s["tokens"]) for s in students]
    ibot = sum(ibot_loss(hidden[v], targets[v], mask[:, v], temperature=0.1) for v in range(2)) / 2
    centers = [0.9 * state[f"{k}_center"] + 0.1 * jnp.mean(jnp.stack(x).reshape(-1, 7), 0)
               for k, x in (("cls", raw), ("patch", patches))]  # fmt: skip
    return contrast, dino, ibot, centers, mask

  contrast, dino, ibot, centers, mask = jax.jit(written_out)(params, state)
  for name, expected in (("image_text", contrast), ("distillation", dino), ("patches", ibot)):
    assert float(out.metrics[f"tips/{name}"]) == pytest.approx(float(expected), rel=1e-4), name
  assert float(out.loss) == pytest.approx(float(contrast + 0.5 * dino + 2 * ibot), rel=1e-5)
  for name, expected in zip(("cls", "patch"), centers, strict=True):
    np.testing.assert_allclose(out.state[f"{name}_center"], expected, rtol=1e-4, atol=1e-6)
  counts = np.asarray(mask).sum(axis=-1)
  assert counts.min() >= 2 and counts.max() <= 8 and (mask[:, 0] != mask[:, 1]).any()
  assert 0 < float(out.metrics["tips/entropy"]) < np.log(7)


def test_the_teacher_follows_after_the_update(tiny):
  params, _, out = tiny
  hot = {**params, "logit_scale": jnp.float32(9)}
  moved, state = OBJECTIVE.post_update(hot, out.state, step=0)
  assert float(moved["logit_scale"]) == pytest.approx(np.log(100))
  student = {name: params[name] for name in state["teacher"]}
  expected = jax.tree.map(lambda t, s: 0.996 * t + 0.004 * s, out.state["teacher"], student)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), state["teacher"], expected)
  same = OBJECTIVE.imported(params, out.state)
  jax.tree.map(np.testing.assert_array_equal, same["teacher"], student)


def test_the_teacher_gets_no_gradient_and_the_student_of_every_part_does(tiny):
  params, state, _ = tiny

  def loss(params, teacher):
    return OBJECTIVE.loss(params, {**state, "teacher": teacher}, make_batch(), rng=KEY, step=0).loss

  student, teacher = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, state["teacher"])
  assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(teacher)) == 0
  for name in ("cls_token", "reg_token", "mask_token"):
    assert float(jnp.abs(student["encoder"][name]).max()) > 1e-5, name
  heads = [student[name]["prototypes"] for name in ("cls_head", "patch_head")]
  assert min(float(jnp.abs(leaf).max()) for leaf in [*heads, student["logit_scale"]]) > 1e-5


def test_one_caption_serves_both_tokens():
  one = dataclasses.replace(OBJECTIVE, captions="one")
  batch = make_batch()
  text = batch["texts"][:, 0]
  twice = batch | {"texts": jnp.stack([text, text], axis=1)}
  params, state = jax.jit(OBJECTIVE.init)(KEY, batch)
  contrast = lambda objective, b: objective.loss(params, state, b, rng=KEY, step=0).metrics["tips/image_text"]
  run = lambda objective, b: float(jax.jit(lambda: contrast(objective, b))())
  assert one.batch_keys == ("views", "local_views", "text")
  assert run(one, batch | {"text": text}) == pytest.approx(run(OBJECTIVE, twice), rel=1e-5)


def test_features_are_of_unit_length_and_of_what_the_batch_has(tiny):
  params, state, _ = tiny
  batch = make_batch()
  encode = jax.jit(OBJECTIVE.encode)
  found = encode(params, state, {"image": batch["views"][:, 0], "text": batch["texts"][:, 0]})
  assert set(found) == {"embedding", "image_features", "synthetic_features", "text_features"}
  for name in set(found) - {"embedding"}:
    np.testing.assert_allclose(np.linalg.norm(found[name], axis=1), 1, rtol=1e-5)
  assert set(encode(params, state, {"text": batch["texts"][:, 0]})) == {"embedding", "text_features"}


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(encoder=TEXT), "encoder Tower, expected vit.ViT"),
    (dict(text=VIT), "text ViT, expected dual.Tower"),
    (dict(encoder=VIT.clone(registers=0)), "encoder.registers 0, expected 1 or more"),
    (dict(encoder=VIT.clone(mask_token="absent")), "encoder.mask_token absent, expected learnt"),
    (dict(encoder=VIT.clone(positions="learnt")), "encoder.positions learnt, expected sincos"),
    (dict(text=TEXT.clone(width=8)), "texts projected to 8 numbers, expected 16"),
    (dict(captions="three"), "captions three"),
    (dict(mask_share=(0.5, 0.2)), "mask_share 0.5 to 0.2, expected"),
    (dict(initial_scale=200.0), "initial_scale 200.0, expected from 1 to max_scale=100.0"),
    (dict(prototypes=0), "prototypes 0, expected at least 1"),
    (dict(student_temperature=0.0), "student_temperature 0.0, expected more than 0"),
  ],
)
def test_bad_fields_are_named(options, message):
  with pytest.raises(UserError, match=f"tips.TIPS: {message}"):
    dataclasses.replace(OBJECTIVE, **options)


def test_the_texts_ids_are_checked():
  OBJECTIVE.check_texts(size=20, end=19)
  with pytest.raises(UserError, match=r"objective\.text\.encoder\.eos: found None, expected 1, which ends the texts"):
    OBJECTIVE.check_texts(size=20, end=1)


def test_built_from_a_config_section():
  encoder = dict(name="vit.ViT", variant="S", patch=14, registers=1, mask_token="learnt")
  text = dict(name="dual.Tower", width=384, encoder=dict(name="text_tower.TextTower", vocab_size=100))
  decay = dict(name="cosine", peak=0.99, end=1.0, warmup_steps=0, total_steps=10)
  objective = build(dict(name="tips.TIPS", encoder=encoder, text=text, decay=decay), "objectives", where="objective")
  assert objective.head.prototypes == 65536 and objective.couples_examples
