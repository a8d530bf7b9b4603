"""Inverse cloze task: the scores of queries and blocks, shared and separate towers, and what does not fit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax import sharding
from ssljax.build import build
from ssljax.errors import UserError
from ssljax.models.bert import Bert
from ssljax.models.text_tower import TextTower
from ssljax.objectives.ict import ICT

BATCH = 8
BERT = Bert(vocab_size=30, length=9, width=16, depth=1, heads=2, pooling="mean")
KEY = jax.random.key(7)


def make_batch():
  draw = np.random.default_rng(0).integers
  index = np.stack([np.zeros(BATCH), np.arange(BATCH)], axis=1)
  texts = {"query": draw(1, 30, (BATCH, 5)), "block": draw(1, 30, (BATCH, 9))}
  return jax.tree.map(lambda x: jnp.asarray(x, jnp.int32), texts) | {"index": jnp.asarray(index, jnp.uint32)}


def run(objective):
  """Parameters, the loss, and the features of the batch."""
  params, state = jax.jit(objective.init)(jax.random.key(0), make_batch())
  both = lambda p: (objective.loss(p, state, make_batch(), rng=KEY, step=0), objective.encode(p, state, make_batch()))
  return params, *jax.jit(both)(params)


@pytest.fixture(scope="module")
def shared():
  objective = ICT(encoder=BERT)
  return objective, *run(objective)


def cross_entropy(scores):
  return np.mean(np.log(np.exp(scores).sum(axis=1)) - np.diag(scores))


def test_the_loss_is_the_queries_cross_entropy_over_blocks(shared):
  _, params, out, found = shared
  query, block = (np.asarray(found[f"{side}_features"], np.float64) for side in ("query", "block"))
  scores = query @ block.T / 4  # sqrt(16)
  assert float(out.loss) == pytest.approx(cross_entropy(scores), rel=1e-5)
  assert abs(cross_entropy(scores.T) - float(out.loss)) > 1e-3  # one direction alone
  probability = np.exp(np.diag(scores)) / np.exp(scores).sum(axis=1)
  assert float(out.metrics["ict/probability"]) == pytest.approx(probability.mean(), rel=1e-4)
  assert float(out.metrics["ict/score"]) == pytest.approx(np.diag(scores).mean(), rel=1e-4)
  assert set(params) == {"shared"} and found["embedding"].shape == (BATCH, 16)
  np.testing.assert_array_equal(found["embedding"], found["query_features"])  # no product, no norm


def test_unscaled_scores(shared):
  objective, params, _, found = shared
  loss = dataclasses.replace(objective, scores="dot").loss(params, {}, make_batch(), rng=KEY, step=0).loss
  scores = np.asarray(found["query_features"], np.float64) @ np.asarray(found["block_features"], np.float64).T
  assert float(loss) == pytest.approx(cross_entropy(scores), rel=1e-4)


def test_two_towers_start_apart_and_each_reads_its_side():
  objective = ICT(encoder=TextTower(vocab_size=30, length=9, width=12, depth=1, heads=2), towers="two", width=6)
  params, _, found = run(objective)
  assert set(params) == set(objective.parts()) == {"query", "block"}
  kernels = [params[side]["projection"]["kernel"] for side in params]
  assert kernels[0].shape == (12, 6) and float(jnp.abs(kernels[0] - kernels[1]).max()) > 1e-2
  without = {**params, "query": jax.tree.map(jnp.zeros_like, params["query"])}
  batch = {"block": make_batch()["block"]}
  blocks = jax.jit(objective.encode)(without, {}, batch)
  assert set(blocks) == {"embedding", "block_features"}
  np.testing.assert_allclose(blocks["block_features"], found["block_features"], rtol=1e-5, atol=1e-6)


def test_the_way_of_the_pairs_changes_nothing(shared):
  objective, params, expected, _ = shared
  ring = dataclasses.replace(objective, pairs="ring")
  with jax.set_mesh(sharding.make_mesh()):
    placed = jax.device_put(make_batch(), sharding.batch_sharding(jax.sharding.get_mesh()))
    compiled = jax.jit(lambda p, b: ring.loss(p, {}, b, rng=KEY, step=0)).lower(params, placed).compile()
    out = compiled(params, placed)
  assert "collective-permute" in compiled.as_text()
  assert float(out.loss) == pytest.approx(float(expected.loss), rel=1e-5)
  assert float(out.metrics["ict/probability"]) == pytest.approx(float(expected.metrics["ict/probability"]), rel=1e-5)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(towers="too"), r"ict.ICT: towers too \(did you mean two\?"),
    (dict(scores="cosine"), "ict.ICT: scores cosine .*valid: dot, scaled"),
    (dict(width=0), "width 0, expected 1 or more"),
    (dict(pairs="rings"), "ict.ICT: pairs rings"),
  ],
)
def test_bad_fields_are_named(options, message):
  with pytest.raises(UserError, match=message):
    ICT(encoder=BERT, **options)


def test_bad_batches_are_named():
  with pytest.raises(UserError, match="batch of 1, expected at least 2"):
    ICT(encoder=BERT).init(KEY, jax.tree.map(lambda x: x[:1], make_batch()))
  with pytest.raises(UserError, match="texts of 12 tokens, expected at most length=9"):
    ICT(encoder=BERT).init(KEY, make_batch() | {"query": jnp.zeros((BATCH, 12), jnp.int32)})


def test_built_from_a_config_section():
  section = dict(name="ict.ICT", encoder=dict(name="bert.Bert", vocab_size=300), towers="two")
  objective = build(section, "objectives", where="objective")
  assert objective.encoder.vocab_size == 300 and objective.batch_keys == ("query", "block")
