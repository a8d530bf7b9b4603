"""Mixture of denoisers: predict hidden text, whatever way it was hidden (the data's business, not this file's)."""

import dataclasses
import math
from typing import Any, final

import jax
import jax.numpy as jnp
from flax import linen as nn

from ssljax import rng as random
from ssljax.errors import UserError
from ssljax.losses.tokens import cross_entropy
from ssljax.models.generate import generate
from ssljax.models.prefix_lm import PrefixLM
from ssljax.models.t5 import T5
from ssljax.types import Array, Batch, LossOutput, Objective, Params, Part, State

GROUPS = ("R", "S", "X", "C")  # what a batch's `target_group` counts: regular, sequential, extreme, causal


def shift_right(x: Array, positions: Array, *, start: int) -> Array:
  """Returns x[B,L] moved one place to the right inside each example, `start` in its first place.

  Args:
    x: tokens or flags.
    positions: int32[B,L], 0 on the first token of each example and on padding.
    start: what the first place gets.
  """
  return jnp.where(positions > 0, jnp.roll(x, 1, axis=1), jnp.asarray(start, x.dtype))


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class UL2(Objective):
  """Cross entropy of the hidden text, by encoder-decoder or by decoder-only prefix language modelling.

  The denoisers are the data's (`data.text.mixture`), so UL2, T5's span corruption, prefix and causal language
  modelling are one objective.

  Attributes:
    model: a `t5.T5` or a `prefix_lm.PrefixLM`.
    z_loss: weight of (log Z)^2.
    groups: the groups of denoisers (R, S, X, C) whose bits per byte are logged.

  Raises:
    UserError: another model, or an unknown group.

  Source: Tay et al., "UL2: Unifying Language Learning Paradigms", 2022, arXiv 2205.05131.
  Differs from the reference: the loss is the mean over predicted tokens (T5 sums; Adafactor does not notice).
  """

  model: nn.Module
  z_loss: float = 1e-4
  groups: tuple[str, ...] = ("R", "S", "X")

  def __post_init__(self):
    if not isinstance(self.model, T5 | PrefixLM):
      raise UserError(f"ul2.UL2: model {type(self.model).__name__}, expected t5.T5 or prefix_lm.PrefixLM")
    if unknown := [group for group in self.groups if group not in GROUPS]:
      raise UserError(f"ul2.UL2: groups {unknown[0]!r}, expected some of {', '.join(GROUPS)}")

  @property
  def batch_keys(self) -> tuple[str, ...]:  # type: ignore[override]
    """Keys of the batch that `loss` reads: those of the model's layout."""
    layout = ("inputs", "input_segments") if isinstance(self.model, T5) else ("prefix",)
    return (*layout, "targets", "target_segments", "target_positions", "target_group", "target_bytes")

  @property
  def vocab_size(self) -> int:
    """Ids the model knows."""
    return self.model.vocab_size

  def parts(self) -> dict[str, Part]:
    """Returns "model": all parameters are its."""
    return {"model": Part(self.model, "", None)}

  def init(self, rng: Array, batch: Batch) -> tuple[Params, State]:
    """Returns the model's parameters and no state."""
    one = {key: jnp.zeros((1, *batch[key].shape[1:]), jnp.int32) for key in self.batch_keys}
    return self.model.init(rng, **self._model_inputs(one))["params"], {}

  def logits(self, params: Params, batch: Batch, *, keys: Array | None = None) -> Array:
    """Returns f32[B,Lt,V]: place t predicts `targets` t; `keys` key[B] for dropout."""
    return self.model.apply({"params": params}, **self._model_inputs(batch), keys=keys)

  def _model_inputs(self, batch: Batch) -> dict[str, Any]:
    positions, segments = batch["target_positions"], batch["target_segments"]
    shifted = shift_right(batch["targets"], positions, start=0)
    if isinstance(self.model, T5):
      given = {"inputs": batch["inputs"], "input_segments": batch["input_segments"]}
      return given | {"targets_in": shifted, "target_segments": segments}
    # Shifted as the tokens are: what is left of the first predicted token is seen from both sides.
    prefix = shift_right(batch["prefix"], positions, start=1) > 0
    return {"tokens_in": shifted, "segments": segments, "positions": positions, "prefix": prefix}

  def predicted(self, batch: Batch) -> Array:
    """Returns f32[B,Lt], 1 on the tokens that are to be predicted."""
    real = batch["target_segments"] > 0
    return (real if isinstance(self.model, T5) else real & (batch["prefix"] == 0)).astype(jnp.float32)

  def nats(self, params: Params, batch: Batch) -> Array:
    """Returns the cross entropy f32[B,Lt] of each predicted token, 0 elsewhere."""
    nats, _ = cross_entropy(self.logits(params, batch), batch["targets"], z_loss=0.0)
    return nats * self.predicted(batch)

  def loss(self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array) -> LossOutput:
    """Returns the mean of cross entropy and z term over predicted tokens; `weight` is their number."""
    del step
    logits = self.logits(params, batch, keys=random.example_keys(rng, batch["index"]))
    nats, size = cross_entropy(logits, batch["targets"], z_loss=self.z_loss)
    counted = self.predicted(batch)
    weight = jnp.maximum(jnp.sum(counted), 1.0)
    # The largest logit is known from log Z; an argmax would be one more pass, and a slow one on CPUs.
    chosen = jnp.take_along_axis(logits, batch["targets"][..., None], axis=-1)[..., 0]
    hits = (chosen >= jax.lax.stop_gradient(logits).max(axis=-1)) * counted
    metrics = {
      "text/nats": jnp.sum(nats * counted) / weight,
      "text/accuracy": jnp.sum(hits) / weight,
      "text/padding": 1 - jnp.mean((batch["target_segments"] > 0).astype(jnp.float32)),
    }
    return LossOutput(
      loss=jnp.sum((nats + size) * counted) / weight,
      state=state,
      metrics=metrics | self._by_group(nats * counted, batch),
      weight=weight,
    )

  def _by_group(self, nats: Array, batch: Batch) -> dict[str, Array]:
    """Returns nats by token and bits by byte of each group of denoisers; 0 where the batch has none of it."""
    counted, metrics = self.predicted(batch), {}
    for group in self.groups:
      mine = (batch["target_group"] == GROUPS.index(group)) * counted
      total = jnp.sum(nats * mine)
      text = jnp.sum(mine * batch["target_bytes"])
      metrics[f"{group}/nats"] = total / jnp.maximum(jnp.sum(mine), 1.0)
      metrics[f"{group}/bits_per_byte"] = total / (math.log(2) * jnp.maximum(text, 1.0))
    return metrics

  def write(
    self, params: Params, prompts: Array, most: int, *, temperature: float, rng: Array | None, eos: int
  ) -> Array:
    """Returns what the model writes, int32[B,most], each row up to `eos` and then 0; see `generate.generate`."""
    return generate(self.model, params, prompts, max_tokens=most, eos=eos, temperature=temperature, rng=rng)

  def encode(self, params: Params, state: State, batch: Batch) -> dict[str, Array]:
    """Returns "embedding" f32[B,D]: the mean of the last hidden states over the row's tokens (encoder, or all)."""
    del state
    variables, given = {"params": params}, self._model_inputs(batch)
    if isinstance(self.model, T5):
      segments = given["input_segments"]
      hidden = self.model.apply(variables, given["inputs"], segments, method="encode")
    else:
      segments = given["segments"]
      hidden = self.model.apply(variables, **given, method="vectors")
    real = (segments > 0).astype(jnp.float32)[..., None]
    return {"embedding": jnp.sum(hidden * real, axis=1) / jnp.maximum(jnp.sum(real, axis=1), 1.0)}
