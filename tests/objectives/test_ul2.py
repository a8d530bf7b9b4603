"""UL2's objective: the shift and the masks of both layouts, its numbers against a slow oracle."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.build import build
from ssljax.errors import UserError
from ssljax.objectives.ul2 import GROUPS, UL2, shift_right

SMALL = dict(vocab_size=30, width=16, depth=1, heads=2, head_width=8, hidden=16)
KEY = jax.random.key(0)


def make(model, **options):
  return build({"name": "ul2.UL2", "model": {"name": model} | SMALL} | options, "objectives", where="objective")


def test_groups_are_the_datas():
  from ssljax.data import mixture

  assert GROUPS == mixture.GROUPS


def test_shift_is_t5s_packed_example():
  """pack_prefix_lm_encoder_decoder's published case: targets 3..7 and 13..15 in one row."""
  targets = jnp.array([[3, 4, 5, 6, 7, 13, 14, 15]])
  positions = jnp.array([[0, 1, 2, 3, 4, 0, 1, 2]])
  assert shift_right(targets, positions, start=0)[0].tolist() == [0, 3, 4, 5, 6, 0, 13, 14]


def test_decoder_only_masks_are_t5s():
  """pack_prefix_lm_decoder_only, split 3 of 8: the loss begins at 3, both directions reach 3 (inputs are shifted)."""
  objective = make("prefix_lm.PrefixLM")
  batch = sequence(split=3, length=8)
  given = objective._model_inputs(batch)
  assert objective.predicted(batch)[0].tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
  assert given["prefix"][0].astype(int).tolist() == [1, 1, 1, 1, 0, 0, 0, 0]


def sequence(split, length):
  place = np.arange(length)[None]
  arrays = dict(targets=place % 20 + 5, target_segments=place * 0 + 1, target_positions=place, prefix=place < split)
  arrays |= dict(target_group=place * 0 + 2, target_bytes=(place >= split) * 4)
  return {key: jnp.asarray(value, jnp.int32) for key, value in arrays.items()} | {
    "index": jnp.zeros((1, 2), jnp.uint32)
  }


def test_prefix_is_read_whole_and_the_rest_is_not():
  objective = make("prefix_lm.PrefixLM")
  batch = sequence(split=4, length=9)
  params, _ = objective.init(KEY, batch)
  logits = jax.jit(objective.logits)(params, batch)
  changed = lambda place: jax.jit(objective.logits)(params, batch | {"targets": batch["targets"].at[0, place].add(1)})
  assert bool((jnp.abs(changed(3) - logits)[0].max(-1) > 1e-6).all())  # the prefix's last token reaches every place
  difference = jnp.abs(changed(6) - logits)[0].max(-1) > 1e-6
  assert difference.tolist() == [False] * 7 + [True] * 2  # a predicted token reaches the places after it


@pytest.mark.parametrize("model", ["t5.T5", "prefix_lm.PrefixLM"])
def test_loss_and_metrics_by_hand(model):
  objective = make(model, z_loss=0.01)
  batch = sequence(split=3, length=8)
  if model == "t5.T5":
    batch |= {"inputs": batch["targets"], "input_segments": batch["target_segments"]}
    batch["target_bytes"] = jnp.full((1, 8), 4)
  params, state = objective.init(KEY, batch)
  out = objective.loss(params, state, batch, rng=KEY, step=jnp.int32(0))
  logits = np.asarray(objective.logits(params, batch), np.float64)[0]
  places = range(8) if model == "t5.T5" else range(3, 8)
  log_z = np.log(np.exp(logits).sum(-1))
  nats = [log_z[t] - logits[t, int(batch["targets"][0, t])] for t in places]
  assert float(out.weight) == len(nats)
  assert float(out.loss) == pytest.approx(
    np.mean([n + 0.01 * log_z[t] ** 2 for n, t in zip(nats, places, strict=True)]), rel=1e-5
  )
  assert float(out.metrics["X/nats"]) == pytest.approx(np.mean(nats), rel=1e-5)
  assert float(out.metrics["X/bits_per_byte"]) == pytest.approx(sum(nats) / math.log(2) / (4 * len(nats)), rel=1e-5)
  assert float(out.metrics["R/nats"]) == 0 and float(out.metrics["text/nats"]) == pytest.approx(np.mean(nats), rel=1e-5)
  assert float(objective.nats(params, batch).sum()) == pytest.approx(sum(nats), rel=1e-5)
  assert out.metrics.keys() >= {"text/accuracy", "text/padding"}
  assert objective.encode(params, state, batch)["embedding"].shape == (1, 16)


def test_bad_sections():
  vit = dict(name="vit.ViT", variant="Ti", patch=4, image_size=8)
  with pytest.raises(UserError, match=r"model ViT, expected t5.T5 or prefix_lm.PrefixLM"):
    build({"name": "ul2.UL2", "model": vit}, "objectives", where="objective")
  with pytest.raises(UserError, match="groups 'Q', expected some of R, S, X, C"):
    make("t5.T5", groups=["Q"])
  assert make("t5.T5").vocab_size == 30 and isinstance(make("t5.T5"), UL2)
