"""OBoW: crops of a picture are to say which visual words a teacher finds in the whole; the words keep changing."""

import dataclasses
import math
from typing import Literal, final

import jax
import jax.numpy as jnp
from flax import linen as nn

from ssljax import precision, sharding, tree
from ssljax import rng as random
from ssljax.errors import UserError
from ssljax.losses.bag_of_words import bag_loss, bag_of_words, squared_distances
from ssljax.losses.contrastive import l2_normalize
from ssljax.losses.self_distillation import entropy
from ssljax.models.branch import run
from ssljax.models.crops import check_crops, embed_crops
from ssljax.models.heads import MLPHead
from ssljax.schedules import Schedule
from ssljax.types import Array, Batch, LossOutput, Objective, Params, Part, State

STUDENT, PLACES = range(2)  # uses of an example's key


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class OBoW(Objective):
  """Predicts from crops the bag of visual words that the teacher makes of the whole picture, its first view.

      bag   = `bag_of_words` of the teacher's map of features, sharpness inverse_delta / distance
      w_k   = predictor(word k / ||word k||) of unit length
      loss  = mean of KL(bag || softmax_k(kappa * student(crop) . w_k)) over the other views
              + the same over the local views

  `distance` is a running mean of how far a place is from the nearest word. The words are features of the last batches:
  one place of every picture, the mean of a window around it, drives out the oldest. The predictor makes the weights
  of the classifier anew from them in each step, so it does not matter which word stands where.

  Attributes:
    encoder: gives "embedding" f32[B,D] and "tokens" f32[B,h*h,D] of square images.
    crops: "multi": views and local views; "views": these alone.
    words: how many there are, a multiple of the batch.
    inverse_delta: how sharp the assignment to words is (15 for ResNet-50, 10 for ResNet-18).
    kappa: what the cosines' like is multiplied by (8 for ResNet-50, 5 for ResNet-18).
    decay: of the teacher; in the paper `schedules.cosine(peak=0.99, end=1.0)`.
    distance_decay: of the mean distance.
    border: rows and columns of the map that are left out at each side.
    window: side of the window whose mean becomes a word, places.

  Raises:
    UserError: a number out of range; in `init`, words that are no multiple of the batch, a batch of one example, less
      than two views, a map smaller than border and window, or local views that the encoder cannot see.

  Source: Gidaris, Bursuc, Puy, Komodakis, Cord, Pérez, "Online Bag-of-Visual-Words Generation for Unsupervised
    Representation Learning", 2020, arXiv 2012.11552.
  Differs from the reference: bags of the last map alone, where its full version has those of the last two. The whole
    picture and the large crops are of one size (`augment.size`). The teacher moves after the step by the decay of the
    next one, instead of before its own forward pass, which is the same.
  """

  encoder: nn.Module
  crops: Literal["multi", "views"] = "multi"
  words: int = 8192
  inverse_delta: float = 15.0
  kappa: float = 8.0
  decay: float | Schedule = 0.99
  distance_decay: float = 0.99
  border: int = 1
  window: int = 3

  couples_examples = True

  def __post_init__(self):
    if self.crops not in ("multi", "views"):
      raise UserError(f"obow.OBoW: crops {self.crops}, expected multi or views")
    for key, least in {"words": 2, "border": 0, "window": 1}.items():
      if getattr(self, key) < least:
        raise UserError(f"obow.OBoW: {key} {getattr(self, key)}, expected at least {least}")
    for key in ("inverse_delta", "kappa"):
      if not getattr(self, key) > 0:
        raise UserError(f"obow.OBoW: {key} {getattr(self, key)}, expected more than 0")
    for key in ("decay", "distance_decay"):
      if not isinstance(getattr(self, key), Schedule) and not 0 <= getattr(self, key) <= 1:
        raise UserError(f"obow.OBoW: {key} {getattr(self, key)}, expected from 0 to 1")

  @property
  def batch_keys(self) -> tuple[str, ...]:  # type: ignore[override]
    """Keys of the batch that `loss` reads: of the crops, the largest first."""
    return ("views", "local_views") if self.crops == "multi" else ("views",)

  @property
  def predictor(self) -> MLPHead:
    """What makes a weight of a word."""
    width = self.encoder.features
    return MLPHead(2 * width, width, last_bias="present", dtype=self.encoder.dtype)

  def parts(self) -> dict[str, Part]:
    """Returns "encoder": the student, which is what the paper uses after pretraining."""
    return {"encoder": Part(self.encoder, "encoder", "stats/encoder")}

  def init(self, rng: Array, batch: Batch) -> tuple[Params, State]:
    """Returns parameters of "encoder" and "predictor"; statistics, a teacher, random "words" f32[K,D], "distance"."""
    check_crops(self.encoder, [batch[key] for key in self.batch_keys], where="obow.OBoW")
    image = jnp.zeros((1, *batch["views"].shape[2:]))
    count = len(batch["views"])
    if self.words % count:
      raise UserError(f"obow.OBoW: words {self.words}, expected a multiple of the batch of {count}")
    keys = jax.random.split(rng, 3)
    found, encoder = self.encoder.init_with_output(keys[0], image)
    side, least = math.isqrt(found["tokens"].shape[1]), 2 * self.border + self.window
    if side < least:
      raise UserError(f"obow.OBoW: a map of {side} x {side}, expected at least {least} places a side (border, window)")
    predictor = self.predictor.init(keys[1], jnp.zeros((2, self.encoder.features)))
    params = {"encoder": encoder["params"], "predictor": predictor["params"]}
    stats = {"encoder": encoder.get("batch_stats", {}), "predictor": predictor["batch_stats"]}
    words = jnp.maximum(jax.random.normal(keys[2], (self.words, self.encoder.features)), 0.0)
    return params, self.imported(params, {"stats": stats, "words": words, "distance": jnp.float32(0.5)})

  def imported(self, params: Params, state: State) -> State:
    """Returns the state with the teacher a copy of the student that came in."""
    copy = lambda nested: {"encoder": jax.tree.map(jnp.array, nested["encoder"])}
    return {**state, "teacher": copy(params), "teacher_stats": copy(state["stats"])}

  def loss(self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array) -> LossOutput:
    """Returns the sum over both resolutions, the mean distance, and how many words a picture and a batch have.

    "obow/words_used" is exp of the entropy of the batch's mean bag: 1 where all pictures are the same word.
    """
    del step
    keys = random.example_keys(rng, batch["index"])
    whole = batch["views"][:, 0]
    crops = [batch["views"][:, 1:], batch["local_views"]] if self.crops == "multi" else [batch["views"][:, 1:]]
    logits, stats = self._guess(params, state, crops, random.spread(keys, STUDENT, 1))
    bags, taught = self._teach(state, whole, random.spread(keys, PLACES, 1))
    sizes = [crop.shape[1] for crop in crops]
    parts = jnp.split(logits, [sizes[0]], axis=1)[: len(crops)]
    metrics = {
      "obow/distance": taught["distance"],
      "obow/words_a_picture": jnp.mean(jnp.exp(entropy(bags))),
      "obow/words_used": jnp.exp(entropy(jnp.mean(bags, axis=0))),
    }
    loss = sum(bag_loss(part, bags) for part in parts)
    return LossOutput(loss=loss, state={**state, "stats": stats, **taught}, metrics=metrics)

  def _guess(self, params: Params, state: State, crops: list[Array], keys: Array) -> tuple[Array, State]:
    """Returns logits f32[B,V,K] of all crops over the words as they were before this batch, and the statistics."""
    stats = state["stats"]
    x, encoder = embed_crops(self.encoder, params["encoder"], stats["encoder"], crops, keys=keys)
    words = sharding.constrain(l2_normalize(state["words"]))  # each device makes the weights of some
    weights, predictor = run(self.predictor, params["predictor"], stats["predictor"], words, train=True)
    logits = precision.einsum("bvd,kd->bvk", self.kappa * x, l2_normalize(weights), dtype=self.encoder.dtype)
    return logits, {"encoder": encoder, "predictor": predictor}

  def _teach(self, state: State, images: Array, keys: Array) -> tuple[Array, State]:
    """Returns the bags f32[B,K] of images f32[B,H,W,C], and what changed in the state: the newest words in front."""
    teacher = jax.lax.stop_gradient(state["teacher"]["encoder"])
    found, stats = run(self.encoder, teacher, state["teacher_stats"]["encoder"], images, train=True)
    features = self._inner(found["tokens"])
    words = sharding.whole(state["words"])
    distances = squared_distances(features.reshape(len(images), -1, features.shape[-1]), words)
    nearest = jnp.mean(jnp.min(distances, axis=-1))
    distance = self.distance_decay * state["distance"] + (1 - self.distance_decay) * nearest
    bags = bag_of_words(distances, sharpness=self.inverse_delta / distance)
    newest = sharding.whole(self._one_place(features, keys))
    kept = sharding.whole(jnp.concatenate([newest, words]))[: self.words]
    return bags, {"teacher_stats": {"encoder": stats}, "words": kept, "distance": distance}

  def _inner(self, tokens: Array) -> Array:
    """Returns the map f32[B,h,h,D] of tokens f32[B,N,D] without its border."""
    side = math.isqrt(tokens.shape[1])
    inside = slice(self.border, side - self.border)
    return jax.lax.stop_gradient(tokens).reshape(len(tokens), side, side, -1)[:, inside, inside]

  def _one_place(self, features: Array, keys: Array) -> Array:
    """Returns the mean of a window at random of each map f32[B,h,h,D]: f32[B,D]."""
    means = nn.avg_pool(features, (self.window, self.window))
    rows = means.reshape(len(means), -1, means.shape[-1])
    return jax.vmap(lambda key, rows: rows[jax.random.randint(key, (), 0, len(rows))])(keys, rows)

  def encode(self, params: Params, state: State, batch: Batch) -> dict[str, Array]:
    """Returns "embedding" f32[B,D] of the student, with its running batch statistics."""
    found, _ = run(self.encoder, params["encoder"], state["stats"]["encoder"], batch["image"], train=False)
    return {"embedding": found["embedding"]}

  def post_update(self, params: Params, state: State, *, step: Array) -> tuple[Params, State]:
    """Returns the parameters, and the state with the teacher as the next step wants it."""
    decay = Schedule.of(self.decay)(step + 1)
    teacher = tree.moved(state["teacher"], {"encoder": params["encoder"]}, decay=decay)
    return params, {**state, "teacher": teacher}
