"""iBOT and DINOv2: each term view by view, the two centres, what is hidden, and what does not fit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_crops import BATCH, Convolution
from tiny_crops import make_batch as make_crops

from ssljax import rng as random
from ssljax.build import build
from ssljax.errors import UserError
from ssljax.losses.clustering import koleo, sinkhorn
from ssljax.losses.self_distillation import dino_loss, distillation
from ssljax.models.vit import ViT
from ssljax.objectives.ibot import iBOT

SIZE, K, PATCH_K = 16, 5, 6
KEY = jax.random.key(7)
VIT = ViT(width=16, depth=1, heads=2, patch=4, image_size=SIZE, mask_token="learnt")
IBOT = iBOT(
  encoder=VIT, prototypes=K, head_hidden=7, head_bottleneck=4, student_temperature=0.3, teacher_temperature=0.2,
  patch_teacher_temperature=0.4, patches=0.5, mask_probability=0.8,
)  # fmt: skip
DINO_V2 = dataclasses.replace(
  IBOT, heads="separate", patch_prototypes=PATCH_K, masks="stratified", koleo=0.1, centering="sinkhorn", crops="views",
  smallest_block=1,
)  # fmt: skip


def make_batch():
  return make_crops(size=SIZE, side=8)


def started(objective):
  """Parameters, a state whose teacher and centres have moved, and the compiled loss(params, state)."""
  params, state = jax.jit(objective.init)(jax.random.key(0), make_batch())
  draw = np.random.default_rng(1).normal
  moved = lambda x: x + 0.2 * jnp.asarray(draw(size=x.shape), jnp.float32)
  state = state | {"teacher": jax.tree.map(moved, state["teacher"])}
  if objective.centering == "ema":
    state["center"] = {name: held | {"center": moved(held["center"])} for name, held in state["center"].items()}
  run = lambda params, state: objective.loss(params, state, make_batch(), rng=KEY, step=0)
  return params, state, jax.jit(run)


@pytest.fixture(scope="module")
def ibot():
  return started(IBOT)


def written_out(objective, params, state):
  """Scores of cls tokens, the teacher's, of patches by view, the teacher's; the mask; the student's cls tokens."""
  batch = make_batch()
  mask = objective._mask(batch["views"], random.example_keys(KEY, batch["index"]))
  encode = lambda p, x, mask=None: VIT.apply({"params": p["encoder"]}, x, mask=mask)
  score = lambda p, name, x: objective.heads_of[name].apply({"params": p[name]}, x)
  patch_head = "patch_head" if objective.heads == "separate" else "head"
  students = [encode(params, batch["views"][:, v], mask[:, v]) for v in range(2)]
  teachers = [encode(state["teacher"], batch["views"][:, v]) for v in range(2)]
  crops = [out["cls"] for out in students]
  if objective.crops == "multi":
    crops += [encode(params, batch["local_views"][:, v])["cls"] for v in range(3)]
  logits = jnp.stack([score(params, "head", x) for x in crops], 1)
  raw = jnp.stack([score(state["teacher"], "head", out["cls"]) for out in teachers], 1)
  patches = [score(params, patch_head, out["tokens"]) for out in students]
  raw_patches = [score(state["teacher"], patch_head, out["tokens"]) for out in teachers]
  return logits, raw, patches, raw_patches, mask, crops[:2]


def slow_patch_loss(patches, targets, mask):
  """Image by image and patch by patch."""
  total = 0.0
  for v in range(2):
    nats = np.asarray(distillation(patches[v], targets[v], temperature=0.3))
    for b in range(BATCH):
      hidden = np.flatnonzero(mask[b, v])
      total += sum(nats[b, n] for n in hidden) / max(len(hidden), 1)
  return total / (2 * BATCH)


def test_ibots_terms_view_by_view_and_both_centres(ibot):
  params, state, loss = ibot
  out = loss(params, state)
  pieces = jax.jit(lambda p, s: written_out(IBOT, p, s))(params, state)
  logits, raw, patches, raw_patches, mask, _ = pieces
  center = {name: held["center"] for name, held in state["center"].items()}
  dino = dino_loss(logits, jax.nn.softmax((raw - center["cls"]) / 0.2), temperature=0.3)
  targets = [jax.nn.softmax((x - center["patches"]) / 0.4) for x in raw_patches]
  expected = slow_patch_loss(patches, targets, np.asarray(mask))
  assert np.asarray(mask).sum() > 0 and expected > 0.1
  assert float(out.metrics["ibot/cls"]) == pytest.approx(float(dino), rel=1e-4)
  assert float(out.metrics["ibot/patches"]) == pytest.approx(expected, rel=1e-4)
  assert float(out.loss) == pytest.approx(float(dino) + 0.5 * expected, rel=1e-5)
  _, after = IBOT.post_update(params, out.state, step=0)
  means = {"cls": raw.reshape(-1, K).mean(0), "patches": jnp.stack(raw_patches).reshape(-1, K).mean(0)}
  for name, mean in means.items():
    np.testing.assert_allclose(after["center"][name]["center"], 0.9 * center[name] + 0.1 * mean, rtol=1e-4, atol=1e-6)


def test_dinov2s_terms_view_by_view():
  """Two heads, Sinkhorn of the cls tokens of both views and of the hidden patches alone, and KoLeo by view."""
  params, state, loss = started(DINO_V2)
  out = loss(params, state)
  pieces = jax.jit(lambda p, s: written_out(DINO_V2, p, s))(params, state)
  logits, raw, patches, raw_patches, mask, cls = pieces
  targets = sinkhorn(raw.reshape(-1, K), epsilon=0.2, iterations=3).reshape(raw.shape)
  dino = float(dino_loss(logits, targets, temperature=0.3))
  mask = np.asarray(mask)
  rows = jnp.stack(raw_patches, 1)  # [B,V,N,K]
  filled = np.zeros(rows.shape)
  filled[mask] = sinkhorn(rows[mask], epsilon=0.4, iterations=3)
  expected = slow_patch_loss(patches, [jnp.asarray(filled[:, v]) for v in range(2)], mask)
  assert (mask.sum(-1) > 0).sum() <= 6 and expected > 0.1  # 0.8 of 8 views
  spread = sum(float(koleo(x)) for x in cls)
  assert float(out.metrics["ibot/cls"]) == pytest.approx(dino, rel=1e-4)
  assert float(out.metrics["ibot/patches"]) == pytest.approx(expected, rel=1e-4)
  assert float(out.metrics["ibot/koleo"]) == pytest.approx(spread, rel=1e-4)
  assert float(out.loss) == pytest.approx(dino + 0.5 * expected + 0.1 * spread, rel=1e-4)
  assert DINO_V2.couples_examples and not IBOT.couples_examples
  assert params["patch_head"]["prototypes"].shape == (4, PATCH_K)


def test_the_teacher_gets_no_gradient_and_the_mask_token_does(ibot):
  params, state, _ = ibot

  def loss(params, teacher):
    return IBOT.loss(params, {**state, "teacher": teacher}, make_batch(), rng=KEY, step=0).loss

  found, none = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, state["teacher"])
  assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(none)) == 0
  for leaf in (found["encoder"]["mask_token"], found["encoder"]["cls_token"], found["head"]["prototypes"]):
    assert float(jnp.abs(leaf).max()) > 1e-5


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(encoder=Convolution()), "encoder Convolution, expected vit.ViT"),
    (dict(encoder=VIT.clone(mask_token="absent")), "encoder.mask_token absent, expected learnt"),
    (dict(encoder=VIT.clone(cls_token="none", pooling="mean")), "encoder.cls_token none, expected learnt"),
    (dict(heads="both"), r"heads both \(valid: separate, shared\)"),
    (dict(masks="strata"), r"masks strata \(did you mean stratified"),
    (dict(mask_share=(0.5, 0.2)), "mask_share 0.5 to 0.2, expected"),
    (dict(mask_probability=0.0), "mask_probability 0.0, expected above 0"),
    (dict(patch_prototypes=8), "patch_prototypes 8, expected none where heads are shared"),
    (dict(patch_prototypes=1, heads="separate"), "patch_prototypes 1, expected at least 2"),
    (dict(smallest_block=0), "smallest_block 0, expected at least 1"),
    (dict(koleo=-1.0), "koleo -1.0, expected a finite number"),
    (dict(patch_teacher_temperature=0.0), "patch_teacher_temperature 0.0, expected more than 0"),
    (dict(prototypes=1), "prototypes 1, expected at least 2"),
  ],
)
def test_bad_fields_are_named(options, message):
  with pytest.raises(UserError, match=f"ibot.iBOT: {message}"):
    dataclasses.replace(IBOT, **options)


def test_built_from_a_config_section():
  encoder = dict(name="vit.ViT", variant="S", patch=16, mask_token="learnt")
  warm = dict(name="linear", peak=0.04, end=0.07, total_steps=30)
  section = dict(name="ibot.iBOT", encoder=encoder, patch_teacher_temperature=warm)
  objective = build(section, "objectives", where="objective")
  assert set(objective.heads_of) == {"head"} and objective.heads_of["head"].prototypes == 8192
