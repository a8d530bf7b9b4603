"""Self-supervised label augmentation: classify what a picture shows and how it was changed, as one label."""

import dataclasses
import itertools
from typing import ClassVar, Literal, final

import jax
import jax.numpy as jnp
from flax import linen as nn

from ssljax import rng as random
from ssljax.errors import UserError, nearest
from ssljax.losses.tokens import cross_entropy
from ssljax.models.branch import as_images, as_views, couples, run
from ssljax.models.heads import MLPHead
from ssljax.objectives.rotnet import rotations
from ssljax.types import Array, Batch, LossOutput, Objective, Params, State

VIEWS = 0  # the use of an example's key


def color_permutations(images: Array) -> Array:
  """Returns images [B,H,W,3] with their channels in all six orders, [B,6,H,W,3]; the first is as it was."""
  return jnp.stack([images[..., list(order)] for order in itertools.permutations(range(3))], axis=1)


TRANSFORMATIONS = {
  "none": (1, lambda images: images[:, None]),
  "rotation": (4, rotations),
  "color_permutation": (6, color_permutations),
}


def aggregate(logits: Array) -> Array:
  """Returns the mean over changes t of the logits of the picture changed by t for (class, t): f32[B,N] of f32[B,M,N,M].

  The first M are the changed pictures, the last M the changes that are part of the label.
  """
  return jnp.mean(jnp.diagonal(logits, axis1=1, axis2=3), axis=-1)


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class SLA(Objective):
  """Changes each labelled picture in M ways and classifies into the N M pairs of class y and change t.

      loss = CE of the joint labels y M + t, mean over the B pictures, mean or sum over their M changes
             + CE(single(x), y) + T^2 KL(softmax(aggregated / T) || softmax(single(x) / T))      where distilled

  `aggregated` averages what the M changed pictures say of the class, each under its own change (`aggregate`); no
  gradient goes through it. The second classifier `single` learns it from the picture as it is. Needs a labelled source.

  Attributes:
    encoder: gives "embedding" f32[B,D] of images.
    num_classes: N, at least as many as the source has.
    transformation: "rotation" (M = 4), "color_permutation" (M = 6), or "none" (M = 1), a plain classifier.
    single: "distilled": the second line of the loss; "none": without.
    temperature: T.
    over_changes: "mean", or "sum", which the authors found better on large data sets.

  Raises:
    UserError: a number out of range, an unknown transformation; in `init`, pictures that are not square ("rotation").

  Source: Lee, Hwang, Shin, "Self-supervised Label Augmentation via Input Transformations", 2020, arXiv 1910.05872.
  """

  encoder: nn.Module
  num_classes: int
  transformation: Literal["none", "rotation", "color_permutation"] = "rotation"
  single: Literal["distilled", "none"] = "distilled"
  temperature: float = 1.0
  over_changes: Literal["mean", "sum"] = "mean"
  batch_keys: ClassVar[tuple[str, ...]] = ("image", "label")

  def __post_init__(self):
    if self.transformation not in TRANSFORMATIONS:
      raise UserError(f"sla.SLA: transformation {nearest(str(self.transformation), TRANSFORMATIONS)}")
    if self.num_classes < 2:
      raise UserError(f"sla.SLA: num_classes {self.num_classes}, expected at least 2")
    if not self.temperature > 0:
      raise UserError(f"sla.SLA: temperature {self.temperature}, expected more than 0")

  @property
  def couples_examples(self) -> bool:  # type: ignore[override]
    """Whether the encoder has batch normalisation."""
    return couples(self.encoder)

  @property
  def changes(self) -> int:
    """M, in how many ways a picture is changed; the first leaves it as it is."""
    return TRANSFORMATIONS[self.transformation][0]

  @property
  def heads(self) -> dict[str, MLPHead]:
    """The classifiers on the embedding: "joint" of N M labels and, where distilled, "single" of N."""
    sizes = {"joint": self.num_classes * self.changes, "single": self.num_classes}
    names = ("joint", "single") if self.single == "distilled" else ("joint",)
    return {name: MLPHead(out=sizes[name], layers=1, last_bias="present", dtype=self.encoder.dtype) for name in names}

  def check_labels(self, num_classes: int | None, *, source: str, where: str = "objective") -> None:
    """Checks a source with so many classes, None where it has no labels; called before anything compiles.

    Raises:
      UserError: it has none, or more than the classifier.
    """
    if num_classes is None:
      raise UserError(f"{where}: sla.SLA reads 'label', but {source} has no labels")
    if num_classes > self.num_classes:
      raise UserError(f"{where}.num_classes: found {self.num_classes}, expected at least the {num_classes} of {source}")

  def init(self, rng: Array, batch: Batch) -> tuple[Params, State]:
    """Returns the parameters of "encoder" and of the heads, and the encoder's batch statistics."""
    keys = jax.random.split(rng, 1 + len(self.heads))
    shape = jax.eval_shape(TRANSFORMATIONS[self.transformation][1], batch["image"]).shape
    encoder = self.encoder.init(keys[0], jnp.zeros((1, *shape[2:])))
    embedding = jnp.zeros((1, self.encoder.features))
    heads = {
      name: head.init(key, embedding)["params"] for key, (name, head) in zip(keys[1:], self.heads.items(), strict=True)
    }
    return {"encoder": encoder["params"]} | heads, {"encoder": encoder.get("batch_stats", {})}

  def _head(self, params: Params, name: str, embedding: Array) -> Array:
    return self.heads[name].apply({"params": params[name]}, embedding)

  def _joint(
    self, params: Params, statistics: State, images: Array, *, train: bool, keys: Array | None = None
  ) -> tuple[Array, Array, State]:
    """Returns the embeddings f32[B,M,D] and joint logits f32[B,M,N,M] of images changed in all ways, and statistics."""
    changed = as_images(TRANSFORMATIONS[self.transformation][1](images))
    found, statistics = run(self.encoder, params["encoder"], statistics, changed, keys=keys, train=train)
    logits = as_views(self._head(params, "joint", found["embedding"]), self.changes)
    return (
      as_views(found["embedding"], self.changes),
      logits.reshape(*logits.shape[:2], self.num_classes, self.changes),
      statistics,
    )

  def loss(self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array) -> LossOutput:
    """Returns the sum, its parts, and the accuracies of the class from the picture alone and aggregated."""
    del step
    keys = random.spread(random.example_keys(rng, batch["index"]), VIEWS, self.changes)
    embeddings, logits, statistics = self._joint(params, state["encoder"], batch["image"], train=True, keys=keys)
    labels = batch["label"]
    targets = labels[:, None] * self.changes + jnp.arange(self.changes)
    loss = jnp.mean(cross_entropy(logits.reshape(*targets.shape, -1), targets, z_loss=0.0)[0])
    aggregated, single = aggregate(logits), logits[:, 0, :, 0]
    loss = loss * self.changes if self.over_changes == "sum" else loss
    metrics = {"sla/joint": loss}
    if self.single == "distilled":
      single = self._head(params, "single", embeddings[:, 0])
      own = jnp.mean(cross_entropy(single, labels, z_loss=0.0)[0])
      taught = self.temperature**2 * jnp.mean(_kl(aggregated / self.temperature, single / self.temperature))
      loss = loss + own + taught
      metrics |= {"sla/single": own, "sla/distillation": taught}
    accuracy = lambda logits: jnp.mean(jnp.argmax(logits, axis=-1) == labels)
    metrics |= {"sla/accuracy": accuracy(single), "sla/aggregated_accuracy": accuracy(aggregated)}
    return LossOutput(loss=loss, state={"encoder": statistics}, metrics=metrics, weight=len(labels))

  def classify(self, params: Params, state: State, images: Array) -> Array:
    """Returns the aggregated logits f32[B,N] of images f32[B,H,W,C]: M passes through the encoder."""
    return aggregate(self._joint(params, state["encoder"], images, train=False)[1])

  def encode(self, params: Params, state: State, batch: Batch) -> dict[str, Array]:
    """Returns "embedding" f32[B,D] and "logits" f32[B,N] of the class, from one pass of the picture as it is."""
    found, _ = run(self.encoder, params["encoder"], state["encoder"], batch["image"], train=False)
    embedding = found["embedding"]
    if self.single == "distilled":
      return {"embedding": embedding, "logits": self._head(params, "single", embedding)}
    joint = self._head(params, "joint", embedding).reshape(len(embedding), self.num_classes, self.changes)
    return {"embedding": embedding, "logits": joint[..., 0]}


def _kl(target: Array, logits: Array) -> Array:
  """Returns KL(softmax(target) || softmax(logits)) f32[B] in nats; no gradient goes to the target."""
  target = jax.lax.stop_gradient(jax.nn.log_softmax(target, axis=-1))
  return jnp.sum(jnp.exp(target) * (target - jax.nn.log_softmax(logits, axis=-1)), axis=-1)
