"""Inverse cloze task: a sentence finds the passage it was taken out of, among the passages of the batch."""

import dataclasses
from typing import ClassVar, Literal, final

import jax
import jax.numpy as jnp
from flax import linen as nn

from ssljax import rng as random
from ssljax.errors import UserError, nearest
from ssljax.losses.contrastive import in_batch_nats
from ssljax.losses.pairs import Pairs, check_pairs
from ssljax.models.dual import Tower
from ssljax.models.text_layers import fold_in
from ssljax.models.text_tower import check_ids
from ssljax.types import Array, Batch, LossOutput, Objective, Params, Part, State

SIDES = ("query", "block")
CHOICES = {"towers": ("shared", "two"), "scores": ("dot", "scaled")}


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class ICT(Objective):
  """Encodes queries and blocks and classifies which of the batch's blocks a query belongs to.

      loss = 1/B sum_i ( log sum_j exp(s_ij) - s_ii ),   s_ij = query_i . block_j  (over sqrt(D), where scaled)

  The pairs are the data's (`data.ict`): a block without the query, which is left in now and then.

  Attributes:
    encoder: of texts: a `bert.Bert` or a `text_tower.TextTower`.
    towers: "shared": one encoder for queries and blocks; "two": one each, from different random numbers.
    width: length D of the vectors that are compared, by one product; None: the encoder's embedding itself.
    scores: dot products as they are ("dot", the paper's), or divided by sqrt(D) ("scaled", Megatron-LM's option), so
      that their spread at the start does not grow with the width.
    pairs: how the logits of all pairs are computed, as in `simclr.SimCLR`.

  Raises:
    UserError: an unknown choice, a width below 1; in `init`, a batch of one example.

  Source: Lee, Chang, Toutanova, "Latent Retrieval for Weakly Supervised Open Domain Question Answering", 2019, arXiv
    1906.00300.
  Differs from the reference: blocks have no titles.
  """

  encoder: nn.Module
  towers: Literal["shared", "two"] = "shared"
  width: int | None = None
  scores: Literal["dot", "scaled"] = "scaled"
  pairs: Pairs = "dense"
  batch_keys: ClassVar[tuple[str, ...]] = SIDES
  couples_examples: ClassVar[bool] = True

  def __post_init__(self):
    check_pairs(self.pairs, where="ict.ICT: pairs")
    for key, valid in CHOICES.items():
      if getattr(self, key) not in valid:
        raise UserError(f"ict.ICT: {key} {nearest(str(getattr(self, key)), valid)}")
    _ = self.tower

  def check_texts(self, *, size: int, end: int) -> None:
    """Checks that the encoder reads ids in [0, size) of texts that end with the id `end`; see `check_ids`."""
    check_ids(self.encoder, size=size, end=end, where="objective.encoder")

  @property
  def tower(self) -> Tower:
    """The encoder with its product."""
    return Tower(encoder=self.encoder, width=self.width)

  def _place(self, side: str) -> str:
    """Returns where in the parameters the tower of a side lies."""
    return "shared" if self.towers == "shared" else side

  def parts(self) -> dict[str, Part]:
    """Returns the encoder as "shared", or one as "query" and one as "block"."""
    places = dict.fromkeys(map(self._place, SIDES))
    return {place: Part(self.encoder, f"{place}/encoder", None) for place in places}

  def init(self, rng: Array, batch: Batch) -> tuple[Params, State]:
    """Returns the parameters of "shared", or of "query" and "block", and no state."""
    if len(batch["query"]) < 2:
      raise UserError(
        f"ict.ICT: found a batch of {len(batch['query'])}, expected at least 2: the others are the negatives"
      )
    longest = jnp.zeros((1, max(batch[side].shape[1] for side in SIDES)), jnp.int32)
    keys = zip(self.parts(), jax.random.split(rng, len(self.parts())), strict=True)
    return {place: self.tower.init(key, longest)["params"] for place, key in keys}, {}

  def _encode(self, params: Params, side: str, tokens: Array, *, keys: Array | None = None) -> dict[str, Array]:
    variables = {"params": params[self._place(side)]}
    return self.tower.apply(variables, tokens, keys=fold_in(keys, SIDES.index(side)))

  def loss(self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array) -> LossOutput:
    """Returns the loss of the batch, the mean probability of the right block, and the mean score of right pairs."""
    del step
    keys = random.example_keys(rng, batch["index"])
    query, block = (self._encode(params, side, batch[side], keys=keys)["projection"] for side in SIDES)
    scale = self.tower.features**-0.5 if self.scores == "scaled" else 1.0
    nats = in_batch_nats(query, block, scale=scale, pairs=self.pairs)
    metrics = {
      "ict/probability": jnp.mean(jnp.exp(-nats)),
      "ict/score": scale * jnp.mean(jnp.sum(query * block, axis=-1)),
    }
    return LossOutput(loss=jnp.mean(nats), state=state, metrics=metrics)

  def encode(self, params: Params, state: State, batch: Batch) -> dict[str, Array]:
    """Returns "query_features" and "block_features" f32[B,D] of what the batch has; their products are the scores.

    "embedding" f32[B,E] is the encoder's, of the queries; of the blocks in a batch of blocks alone.
    """
    del state
    found = {side: self._encode(params, side, batch[side]) for side in SIDES if side in batch}
    features = {f"{side}_features": out["projection"] for side, out in found.items()}
    return {"embedding": next(iter(found.values()))["embedding"]} | features
