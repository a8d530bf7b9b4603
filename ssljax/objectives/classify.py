"""Classification: what a pretrained encoder is fine-tuned with where there are labels."""

import dataclasses
from typing import final

import jax
import jax.numpy as jnp
from flax import linen as nn

from ssljax import rng as random
from ssljax.errors import UserError
from ssljax.losses.classification import smoothed_cross_entropy
from ssljax.models.branch import Branch, couples, run, width_of
from ssljax.models.heads import ACTIVATIONS, MLPHead
from ssljax.models.layers import Dense
from ssljax.types import Array, Batch, LossOutput, Objective, Params, State


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Classifier(Objective):
  """An encoder under a linear head, all of it trained on labels.

  Parameters lie where pretraining has them ("encoder", "projector"), so that `--from` loads them by path.

  Attributes:
    encoder: gives "embedding" f32[B,D] of images.
    num_classes: how many there are; labels go from 0 to one less.
    projector: the first layers of the pretraining's projector, kept between embedding and head; None: the head reads
      the embedding. Of SimCLR v2, which fine-tunes from the first layer of its projector:
      dict(name="heads.MLPHead", layers=1, out=<its hidden width>, last_norm="affine").
    smoothing: of the labels, see `losses.classification`.
    head_std: standard deviation of the head's first kernel (cut at two); 0: zeros. The bias starts at zero.

  Raises:
    UserError: a number out of range, a projector that is none.

  Source: He et al., Masked Autoencoders Are Scalable Vision Learners, 2021, arXiv 2111.06377 (the head, smoothing
    0.1); Chen et al., Big Self-Supervised Models are Strong Semi-Supervised Learners, 2020, arXiv 2006.10029 (the
    projector).
  """

  encoder: nn.Module
  num_classes: int
  projector: nn.Module | None = None
  smoothing: float = 0.0
  head_std: float = 2e-5

  def __post_init__(self):
    if self.num_classes < 2:
      raise UserError(f"classify.Classifier: num_classes {self.num_classes}, expected at least 2")
    if not 0 <= self.smoothing < 1:
      raise UserError(f"classify.Classifier: smoothing {self.smoothing}, expected a share, from 0 to below 1")
    if not 0 <= self.head_std < float("inf"):
      raise UserError(f"classify.Classifier: head_std {self.head_std}, expected a finite number, 0 or more")
    if not isinstance(self.projector, MLPHead | None):
      raise UserError(f"classify.Classifier: projector {type(self.projector).__name__}, expected heads.MLPHead")

  @property
  def batch_keys(self) -> tuple[str, ...]:  # type: ignore[override]
    """Keys of the batch that `loss` reads."""
    return ("image", "label")

  @property
  def couples_examples(self) -> bool:  # type: ignore[override]
    """Whether there is batch normalisation: in the projector or in the encoder."""
    return self.projector is not None or couples(self.encoder)

  @property
  def branch(self) -> Branch:
    """What is under the head."""
    return Branch(self.encoder, self.projector)

  @property
  def head(self) -> Dense:
    """The linear layer whose outputs are the classes' logits."""
    init = nn.initializers.truncated_normal(self.head_std) if self.head_std else nn.initializers.zeros
    return Dense(self.num_classes, kernel_init=init)

  def check_labels(self, num_classes: int | None, *, source: str, where: str = "objective") -> None:
    """Checks a source with so many classes, None where it has no labels; called before anything compiles.

    Raises:
      UserError: it has none, or more than `self.num_classes`.
    """
    if num_classes is None:
      raise UserError(f"{where}: classify.Classifier reads 'label', but {source} has no labels")
    if num_classes > self.num_classes:
      raise UserError(f"{where}.num_classes: found {self.num_classes}, expected at least the {num_classes} of {source}")

  def init(self, rng: Array, batch: Batch) -> tuple[Params, State]:
    """Returns parameters of "encoder", "projector" (if any) and "head", and batch statistics of the first two."""
    below, above = jax.random.split(rng)
    count, *shape = batch["image"].shape
    params, state = self.branch.init(below, jax.ShapeDtypeStruct((count, 1, *shape), jnp.float32))
    width = width_of(self.encoder if self.projector is None else self.projector)
    return params | {"head": self.head.init(above, jnp.zeros((1, width)))["params"]}, state

  def logits(
    self, params: Params, state: State, images: Array, *, train: bool, keys: Array | None = None
  ) -> tuple[dict[str, Array], State]:
    """Returns ("embedding" f32[B,D] and "logits" f32[B,K] of images, the next batch statistics).

    Args:
      params, state: of this objective.
      images: f32[B,H,W,C], normalised.
      train: normalise by the batch and move the running statistics.
      keys: key[B] of the encoder's stochastic depth, None without.
    """
    found, state = self.branch(params, state, images, train=train, keys=keys)
    x = found["embedding"]
    if self.projector is not None:  # a layer in the middle of pretraining's projector had its activation behind it
      x = ACTIVATIONS[self.projector.activation](found["projection"])
    logits, _ = run(self.head, params["head"], {}, x)
    return {"embedding": found["embedding"], "logits": logits}, state

  def loss(self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array) -> LossOutput:
    """Returns the mean cross entropy of the smoothed labels, and how many are right; `weight` is the examples."""
    del step
    keys, labels = random.example_keys(rng, batch["index"]), batch["label"]
    found, state = self.logits(params, state, batch["image"], train=True, keys=keys)
    loss = jnp.mean(smoothed_cross_entropy(found["logits"], labels, smoothing=self.smoothing))
    accuracy = jnp.mean((jnp.argmax(found["logits"], axis=-1) == labels).astype(jnp.float32))
    return LossOutput(loss=loss, state=state, metrics={"classify/accuracy": accuracy}, weight=len(labels))

  def encode(self, params: Params, state: State, batch: Batch) -> dict[str, Array]:
    """Returns "embedding" f32[B,D] and "logits" f32[B,K], with the running batch statistics."""
    return self.logits(params, state, batch["image"], train=False)[0]
