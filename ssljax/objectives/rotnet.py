"""RotNet: which of four ways up is a picture?"""

import dataclasses
from typing import ClassVar, final

import jax
import jax.numpy as jnp
from flax import linen as nn

from ssljax import rng as random
from ssljax.errors import UserError
from ssljax.losses.tokens import cross_entropy
from ssljax.models.branch import as_images, as_views, couples, run
from ssljax.models.heads import MLPHead
from ssljax.types import Array, Batch, LossOutput, Objective, Params, State

TURNS = 4
VIEWS = 0  # the use of an example's key


def rotations(images: Array) -> Array:
  """Returns images [B,S,S,C] turned counter-clockwise by 0, 90, 180 and 270 degrees, [B,4,S,S,C].

  Raises:
    UserError: the images are not square.
  """
  if images.shape[1] != images.shape[2]:
    raise UserError(f"augment: found images of {images.shape[1]} x {images.shape[2]} pixels, expected square ones")
  return jnp.stack([jnp.rot90(images, turn, axes=(1, 2)) for turn in range(TURNS)], axis=1)


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class RotNet(Objective):
  """Turns each picture in all four ways and classifies by which: who can tell has seen what the picture shows.

      loss = mean over the 4 B pictures of -log softmax(head(encoder(picture)))[turn]

  Batch statistics are those of all 4 B pictures on all devices.

  Attributes:
    encoder: gives "embedding" f32[N,D] of images.

  Raises:
    UserError: in `init`, pictures that are not square.

  Source: Gidaris, Singh, Komodakis, "Unsupervised Representation Learning by Predicting Image Rotations", 2018,
    arXiv 1803.07728.
  Differs from the reference: the classifier is one layer on the encoder's embedding.
  """

  encoder: nn.Module
  batch_keys: ClassVar[tuple[str, ...]] = ("image",)

  @property
  def couples_examples(self) -> bool:  # type: ignore[override]
    """Whether the encoder has batch normalisation."""
    return couples(self.encoder)

  @property
  def head(self) -> MLPHead:
    """The layer from the embedding to the logits of the four turns."""
    return MLPHead(out=TURNS, layers=1, last_bias="present", dtype=self.encoder.dtype)

  def init(self, rng: Array, batch: Batch) -> tuple[Params, State]:
    """Returns the parameters of "encoder" and "head", and the encoder's batch statistics."""
    keys = jax.random.split(rng)
    shape = jax.eval_shape(rotations, batch["image"]).shape
    encoder = self.encoder.init(keys[0], jnp.zeros((1, *shape[2:])))
    head = self.head.init(keys[1], jnp.zeros((1, self.encoder.features)))
    return {"encoder": encoder["params"], "head": head["params"]}, {"encoder": encoder.get("batch_stats", {})}

  def loss(self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array) -> LossOutput:
    """Returns the cross entropy of the turns, and which share of them is found."""
    del step
    keys = random.spread(random.example_keys(rng, batch["index"]), VIEWS, TURNS)
    images = as_images(rotations(batch["image"]))
    found, statistics = run(self.encoder, params["encoder"], state["encoder"], images, keys=keys, train=True)
    logits = as_views(self.head.apply({"params": params["head"]}, found["embedding"]), TURNS)
    turns = jnp.broadcast_to(jnp.arange(TURNS), logits.shape[:2])
    loss = jnp.mean(cross_entropy(logits, turns, z_loss=0.0)[0])
    metrics = {"rotnet/accuracy": jnp.mean(jnp.argmax(logits, axis=-1) == turns)}
    return LossOutput(loss=loss, state={"encoder": statistics}, metrics=metrics, weight=turns.size)

  def encode(self, params: Params, state: State, batch: Batch) -> dict[str, Array]:
    """Returns "embedding" f32[B,D] and "logits" f32[B,4] of the turns, with the running batch statistics."""
    found, _ = run(self.encoder, params["encoder"], state["encoder"], batch["image"], train=False)
    embedding = found["embedding"]
    return {"embedding": embedding, "logits": self.head.apply({"params": params["head"]}, embedding)}
