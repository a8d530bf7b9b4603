"""SIE: one half of the embedding does not see how a view was made, the other can be moved to the other view."""

import dataclasses
import math
from typing import ClassVar, final

import jax
import jax.numpy as jnp
from flax import linen as nn

from ssljax import rng as random
from ssljax.errors import UserError
from ssljax.losses.redundancy import variance_and_covariance
from ssljax.models.branch import as_views, run
from ssljax.models.heads import MLPHead
from ssljax.models.hypernetwork import LinearHypernetwork
from ssljax.schedules import Schedule
from ssljax.types import Array, Batch, LossOutput, Objective, Params, State
from ssljax.view_numbers import NAMES, relative

VIEWS = 0  # the use of an example's key
SIDES = ("invariant", "equivariant")
WEIGHTS = ("invariance", "equivariance", "variance", "covariance")


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class SIE(Objective):
  """Splits the embedding: numbers that both views share, and numbers a transformation moves from view to view.

  With x, y the two views' projections, each side by a projector of its own, and W(z) the linear map that a
  hypernetwork makes of z, how the second view relates to the first (`view_numbers.relative`):

      loss = invariance * mse(x_inv, y_inv) + equivariance * mse(W(z) x_equi, y_equi)
             + variance * (VICReg's of x and y + v(W(z) x_equi) / 2) + covariance * VICReg's of x and y

  Variance and covariance are of both sides together, so that neither repeats the other; v is `vicreg`'s hinge. The
  prediction has a variance term so that the map does not shrink to nothing.

  Attributes:
    encoder: gives "embedding" f32[B,D] of images.
    equivariant: how many of the D numbers, the last, are equivariant.
    projector_hidden, projector_out, projector_layers: of both projectors together; each has its side's share.
    invariance, equivariance, variance, covariance: the weights.

  Raises:
    UserError: a number out of range; in `init`, a batch without two views, without their numbers or of one example.

  Source: Garrido, Najman, LeCun, "Self-supervised learning of Split Invariant Equivariant representations", 2023,
    arXiv 2302.10283.
  Differs from the reference: there an object of a 3D scene is turned and z is the quaternion between its two poses;
    here z says how crops, mirror images and colours differ (`augment.tell="transforms"`). The weights are those of the
    released code's documented command; without its `--equi-factor 0.45` that code takes an equivariance of 45.
  """

  encoder: nn.Module
  equivariant: int = 256
  projector_hidden: int = 2048
  projector_out: int = 2048
  projector_layers: int = 3
  invariance: float | Schedule = 10.0
  equivariance: float | Schedule = 4.5
  variance: float | Schedule = 10.0
  covariance: float | Schedule = 1.0
  batch_keys: ClassVar[tuple[str, ...]] = ("views", "transforms")
  couples_examples: ClassVar[bool] = True

  def __post_init__(self):
    if not 0 < self.equivariant < self.encoder.features:
      found = f"{self.equivariant} of {self.encoder.features} numbers"
      raise UserError(f"sie.SIE: equivariant {found}, expected 1 to {self.encoder.features - 1}")
    for key in ("projector_hidden", "projector_out"):
      if min(self._split(getattr(self, key))) < 1:
        raise UserError(f"sie.SIE: {key} {getattr(self, key)}, expected some for each side")
    if self.projector_layers < 1:
      raise UserError(f"sie.SIE: projector_layers {self.projector_layers}, expected at least 1")
    for key in WEIGHTS:
      value = getattr(self, key)
      if not isinstance(value, Schedule) and not 0 <= value < math.inf:
        raise UserError(f"sie.SIE: {key} {value}, expected a finite number, 0 or more")

  def _split(self, size: int) -> tuple[int, int]:
    """Returns the invariant and the equivariant share of a number."""
    equivariant = round(size * self.equivariant / self.encoder.features)
    return size - equivariant, equivariant

  @property
  def projectors(self) -> dict[str, MLPHead]:
    """The heads between each side of the embedding and the loss, by side."""
    sizes = zip(SIDES, self._split(self.projector_hidden), self._split(self.projector_out), strict=True)
    return {
      side: MLPHead(hidden=hidden, out=out, layers=self.projector_layers, dtype=self.encoder.dtype)
      for side, hidden, out in sizes
    }

  @property
  def hypernetwork(self) -> LinearHypernetwork:
    """Makes the map of equivariant projections of how the views relate."""
    return LinearHypernetwork(dtype=self.encoder.dtype)

  def init(self, rng: Array, batch: Batch) -> tuple[Params, State]:
    """Returns parameters of "encoder", both sides' projectors and "hypernetwork", and the batch statistics."""
    views = batch["views"]
    if views.shape[1] != 2:
      raise UserError(f"sie.SIE: found {views.shape[1]} views of an image, expected 2")
    if len(views) < 2:
      raise UserError(f"sie.SIE: found a batch of {len(views)}, expected at least 2: one example has no variance")
    keys = jax.random.split(rng, 4)
    encoder = self.encoder.init(keys[0], jnp.zeros((1, *views.shape[2:])))
    sizes = self._split(self.encoder.features)
    heads = {
      side: head.init(key, jnp.zeros((2, size)))
      for key, size, (side, head) in zip(keys[1:3], sizes, self.projectors.items(), strict=True)
    }
    moved = jnp.zeros((1, self.projectors["equivariant"].out))
    hypernetwork = self.hypernetwork.init(keys[3], moved, jnp.zeros((1, len(NAMES))))["params"]
    networks = {"encoder": encoder} | heads
    return (
      {name: network["params"] for name, network in networks.items()} | {"hypernetwork": hypernetwork},
      {name: network.get("batch_stats", {}) for name, network in networks.items()},
    )

  def _sides(self, embedding: Array) -> dict[str, Array]:
    """Returns the two sides of embeddings f32[B,D]."""
    return dict(zip(SIDES, jnp.split(embedding, [self.encoder.features - self.equivariant], axis=-1), strict=True))

  def _project(self, params: Params, state: State, images: Array, keys: Array) -> tuple[dict[str, Array], State]:
    """Returns the projections f32[B,P] by side, and the next state."""
    found, encoder = run(self.encoder, params["encoder"], state["encoder"], images, train=True, keys=keys)
    projections, state = {}, {**state, "encoder": encoder}
    for side, x in self._sides(found["embedding"]).items():
      projections[side], state[side] = run(self.projectors[side], params[side], state[side], x, train=True)
    return projections, state

  def loss(self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array) -> LossOutput:
    """Returns the weighted sum and its terms."""
    keys = as_views(random.spread(random.example_keys(rng, batch["index"]), VIEWS, 2), 2)
    views, transforms = batch["views"], batch["transforms"]
    x, state = self._project(params, state, views[:, 0], keys[:, 0])
    y, state = self._project(params, state, views[:, 1], keys[:, 1])
    z = relative(transforms[:, 0], transforms[:, 1])
    moved = self.hypernetwork.apply({"params": params["hypernetwork"]}, x["equivariant"], z)
    both = [variance_and_covariance(jnp.concatenate([v[side] for side in SIDES], axis=-1)) for v in (x, y)]
    hinges = both[0]["variance"] + both[1]["variance"] + variance_and_covariance(moved)["variance"]
    terms = {
      "invariance": jnp.mean(jnp.square(x["invariant"] - y["invariant"])),
      "equivariance": jnp.mean(jnp.square(moved - y["equivariant"])),
      "variance": 0.5 * hinges,
      "covariance": both[0]["covariance"] + both[1]["covariance"],
    }
    total = sum(Schedule.of(getattr(self, key))(step) * term for key, term in terms.items())
    still = jnp.mean(jnp.square(x["equivariant"] - y["equivariant"]))  # what the map must be better than
    metrics = {f"sie/{key}": term for key, term in terms.items()} | {"sie/unmoved": still}
    return LossOutput(loss=total, state=state, metrics=metrics)

  def encode(self, params: Params, state: State, batch: Batch) -> dict[str, Array]:
    """Returns "embedding" f32[B,D] and its sides, "invariant" and "equivariant"."""
    found, _ = run(self.encoder, params["encoder"], state["encoder"], batch["image"], train=False)
    return {"embedding": found["embedding"]} | self._sides(found["embedding"])
