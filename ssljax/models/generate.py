"""Tokens from a model, one after the other, without computing the earlier ones again."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from ssljax.errors import UserError
from ssljax.types import Array, Params, PyTree

PAD = 0


class _Progress(NamedTuple):
  """The loop's state: tokens int32[B,T] so far, how many, whose row is complete bool[B], the model's cache."""

  tokens: Array
  count: Array
  done: Array
  cache: PyTree


def generate(
  model: nn.Module,
  params: Params,
  prompt: Array,
  *,
  max_tokens: int,
  eos: int,
  temperature: float = 0.0,
  rng: Array | None = None,
) -> Array:
  """Returns generated tokens int32[B,max_tokens], each row up to and with its first `eos`, then 0.

  It is compiled once for each model, shape of prompts and `max_tokens`, and stops when all rows are complete.

  Args:
    model: `T5` or `PrefixLM`, or another with `prefill` and `step` as theirs.
    params: the model's parameters.
    prompt: int32[B,P], one example a row, 0 is padding: the encoder's input or the decoder's prefix.
    max_tokens: the most tokens a row gets.
    eos: the token that completes a row.
    temperature: what logits are divided by before a token is drawn; 0 takes the most probable.
    rng: key[], needed to draw.

  Raises:
    UserError: max_tokens below 1, a negative temperature, or one above 0 without rng.
  """
  if max_tokens < 1:
    raise UserError(f"generate: max_tokens {max_tokens}, expected 1 or more")
  if temperature < 0:
    raise UserError(f"generate: temperature {temperature}, expected 0 (most probable) or more")
  if temperature > 0 and rng is None:
    raise UserError(f"generate: temperature {temperature} without rng, expected a random key to draw with")
  return _generate(model, params, prompt, max_tokens, eos, temperature, rng if temperature > 0 else None)


def _draw(logits: Array, temperature: Array, rng: Array | None) -> Array:
  if rng is None:
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)
  return jax.random.categorical(rng, logits / temperature, axis=-1).astype(jnp.int32)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _generate(model, params, prompt, max_tokens, eos, temperature, rng):
  variables = {"params": params}

  def extended(progress: _Progress, logits: Array, cache: PyTree) -> _Progress:
    key = None if rng is None else jax.random.fold_in(rng, progress.count)
    token = jnp.where(progress.done, PAD, _draw(logits, temperature, key))
    tokens = progress.tokens.at[:, progress.count].set(token)
    return _Progress(tokens, progress.count + 1, progress.done | (token == eos), cache)

  def unfinished(progress: _Progress) -> Array:
    return (progress.count < max_tokens) & ~jnp.all(progress.done)

  def turn(progress: _Progress) -> _Progress:
    last = progress.tokens[:, progress.count - 1]
    return extended(progress, *model.apply(variables, last, progress.cache, method="step"))

  batch = len(prompt)
  start = _Progress(jnp.full((batch, max_tokens), PAD), jnp.zeros((), jnp.int32), jnp.zeros(batch, bool), None)
  first = extended(start, *model.apply(variables, prompt, length=max_tokens, method="prefill"))
  return jax.lax.while_loop(unfinished, turn, first).tokens
