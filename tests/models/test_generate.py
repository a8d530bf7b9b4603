import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.errors import UserError
from ssljax.models.generate import generate
from ssljax.models.prefix_lm import PrefixLM
from ssljax.models.t5 import T5

SIZE = {"vocab_size": 20, "width": 16, "depth": 2, "heads": 2, "head_width": 6, "hidden": 24}
STEPS, NEVER = 7, -1
PROMPT = np.array([[5, 9, 3, 12, 7], [4, 17, 0, 0, 0], [0, 0, 8, 8, 11]])


@functools.partial(jax.jit, static_argnums=0)
def t5_logits(model, params, written):
  """Logits [B,STEPS,V] by the whole forward pass, written int32[B,STEPS]; those at n depend on written[:, :n]."""
  targets_in = jnp.pad(written, ((0, 0), (1, 0)))[:, :-1]
  segments = {"input_segments": (PROMPT != 0).astype("int32"), "target_segments": jnp.ones_like(targets_in)}
  return model.apply({"params": params}, PROMPT, targets_in, **segments)


@functools.partial(jax.jit, static_argnums=0)
def prefix_lm_logits(model, params, written):
  """The same, each prompt without its padding and what is written right behind it."""
  lengths = (PROMPT != 0).sum(1)
  rows = [jnp.concatenate([jnp.zeros(1, int), p[p != 0], w]) for p, w in zip(PROMPT, written, strict=True)]
  tokens_in = jnp.stack([jnp.pad(row, (0, PROMPT.shape[1] + STEPS - len(row) + 1)) for row in rows])
  places = np.broadcast_to(np.arange(tokens_in.shape[1]), tokens_in.shape)
  options = {"segments": np.ones_like(places), "positions": places, "prefix": places <= lengths[:, None]}
  logits = model.apply({"params": params}, tokens_in, **options)
  return jnp.stack([row[n : n + STEPS] for row, n in zip(logits, lengths, strict=True)])


MODELS = {"t5": (T5(**SIZE), t5_logits), "prefix_lm": (PrefixLM(**SIZE), prefix_lm_logits)}


@pytest.fixture(scope="module", params=MODELS)
def case(request, random_variables):
  model, logits = MODELS[request.param]
  tokens = np.ones((1, 2), int)
  segments = {"input_segments": tokens, "target_segments": tokens}
  rows = {"segments": tokens, "positions": tokens, "prefix": tokens > 0}
  inputs = ((tokens, tokens), segments) if request.param == "t5" else ((tokens,), rows)
  params = random_variables(model, *inputs[0], **inputs[1], scale=0.6)["params"]
  written = np.zeros((3, STEPS), int)
  for n in range(STEPS):
    written[:, n] = np.argmax(logits(model, params, written)[:, n], -1)
  return model, params, written


def test_greedy_equals_the_whole_forward_pass_at_each_step(case):
  model, params, written = case
  out = generate(model, params, PROMPT, max_tokens=STEPS, eos=NEVER)
  assert out.dtype == jnp.int32 and len({tuple(row) for row in written.tolist()}) > 1
  np.testing.assert_array_equal(out, written)


def test_rows_end_with_their_first_eos(case):
  model, params, written = case
  eos = int(written[0, 2])
  expected = written.copy()
  for row in expected:
    ends = np.flatnonzero(row == eos)
    if len(ends):
      row[ends[0] + 1 :] = 0
  out = generate(model, params, PROMPT, max_tokens=STEPS, eos=eos)
  np.testing.assert_array_equal(out, expected)


def test_one_token_needs_no_step(case):
  model, params, written = case
  np.testing.assert_array_equal(generate(model, params, PROMPT, max_tokens=1, eos=NEVER), written[:, :1])


def test_the_loop_stops_when_all_rows_are_complete(case):
  model, params, written = case
  prompt = np.repeat(PROMPT[:1], 3, axis=0)
  out = generate(model, params, prompt, max_tokens=STEPS, eos=int(written[0, 0]))
  np.testing.assert_array_equal(out, np.pad(np.repeat(written[:1, :1], 3, axis=0), ((0, 0), (0, STEPS - 1))))


def test_sampling_is_decided_by_the_key_and_cold_sampling_is_greedy(case):
  model, params, written = case
  draw = lambda seed, temperature: np.asarray(
    generate(model, params, PROMPT, max_tokens=STEPS, eos=NEVER, temperature=temperature, rng=jax.random.key(seed))
  )
  np.testing.assert_array_equal(draw(0, 3.0), draw(0, 3.0))
  assert np.any(draw(0, 3.0) != draw(1, 3.0))
  np.testing.assert_array_equal(draw(0, 1e-4), written)


def test_sampling_follows_the_softmax(random_variables):
  model, logits = MODELS["t5"]
  tokens = np.ones((1, 2), int)
  params = random_variables(model, tokens, tokens, input_segments=tokens, target_segments=tokens)["params"]
  prompt = np.repeat(PROMPT[:1], 4000, axis=0)
  options = {"max_tokens": 1, "eos": NEVER, "temperature": 0.5, "rng": jax.random.key(0)}
  drawn = np.bincount(generate(model, params, prompt, **options)[:, 0], minlength=20) / 4000
  expected = jax.nn.softmax(logits(model, params, np.zeros((3, STEPS), int))[0, 0] / 0.5)
  np.testing.assert_allclose(drawn, expected, atol=0.03)


def test_a_bfloat16_cache_gives_the_bfloat16_model(case):
  model, params, _ = case
  other = model.clone(dtype="bfloat16")
  _, cache = jax.eval_shape(
    lambda: other.apply({"params": params}, jnp.asarray(PROMPT), length=STEPS, method="prefill")
  )
  layers = jax.tree.leaves(cache.layers)
  assert all(leaf.dtype == jnp.bfloat16 and leaf.shape[0] == 2 for leaf in layers)
  assert generate(other, params, PROMPT, max_tokens=2, eos=NEVER).shape == (3, 2)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"max_tokens": 0}, "max_tokens 0"),
    ({"temperature": -1.0}, "temperature -1.0"),
    ({"temperature": 1.0}, "temperature 1.0 without rng"),
  ],
)
def test_mistakes_are_named(options, message):
  with pytest.raises(UserError, match=message):
    generate(MODELS["t5"][0], {}, PROMPT, **{"max_tokens": 3, "eos": 1} | options)
