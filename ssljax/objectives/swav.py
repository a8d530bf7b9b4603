"""SwAV: the cluster of one view of a picture is predicted from its other views."""

import dataclasses
from typing import Literal, final

import jax
import jax.numpy as jnp
from flax import linen as nn

from ssljax import precision, sharding
from ssljax import rng as random
from ssljax.errors import UserError
from ssljax.losses.clustering import sinkhorn
from ssljax.losses.contrastive import l2_normalize
from ssljax.losses.self_distillation import dino_loss, entropy
from ssljax.models.branch import Branch, as_images, as_views, run
from ssljax.models.crops import check_crops, embed_crops
from ssljax.models.heads import MLPHead
from ssljax.schedules import Schedule
from ssljax.types import Array, Batch, LossOutput, Objective, Params, Part, State


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class SwAV(Objective):
  """Assigns the views of a batch to prototypes, all of them alike often, and predicts the assignment from other views.

      loss = mean over views i and other crops v of -sum_k q_ik log softmax(z_v . c_k / T)

  z is a projection and c a prototype, both of unit length; q are the `sinkhorn` assignments of the views. A queue of
  the projections of earlier batches, if there is one, is assigned with them, for batches much smaller than the number
  of prototypes. The paper lets the prototypes stand still at first: `optimizer.hold=(("prototypes", STEP),)`.

  Attributes:
    encoder: gives "embedding" f32[B,D] of images.
    crops: "multi": views and local views; "views": these alone.
    projector_hidden, projector_out: width of the projector's hidden layer, length of a projection.
    prototypes: how many.
    temperature: T.
    epsilon, iterations: how soft the assignments are, and the turns of Sinkhorn.
    queue: how many examples are kept of each view, a multiple of the batch; 0: none.
    queue_from: the step from which on the queue is assigned too, once it is full.

  Raises:
    UserError: a number out of range; in `init`, a batch of one example, one view, a queue that is no multiple of the
      batch, or local views that the encoder cannot see.

  Source: Caron, Misra, Mairal, Goyal, Bojanowski, Joulin, "Unsupervised Learning of Visual Features by Contrasting
    Cluster Assignments", 2020, arXiv 2006.09882.
  Differs from the reference: the queue fills from the first step on and not from `queue_from`. Prototypes are put back
    to unit length after the optimiser's step instead of before the next forward pass, which is the same.
  """

  encoder: nn.Module
  crops: Literal["multi", "views"] = "multi"
  projector_hidden: int | None = 2048
  projector_out: int = 128
  prototypes: int = 3000
  temperature: float | Schedule = 0.1
  epsilon: float = 0.05
  iterations: int = 3
  queue: int = 0
  queue_from: int = 0

  couples_examples = True

  def __post_init__(self):
    if self.crops not in ("multi", "views"):
      raise UserError(f"swav.SwAV: crops {self.crops}, expected multi or views")
    least = {"projector_hidden": 1, "projector_out": 1, "prototypes": 2, "iterations": 1, "queue": 0, "queue_from": 0}
    for key, value in least.items():
      if getattr(self, key) is not None and getattr(self, key) < value:
        raise UserError(f"swav.SwAV: {key} {getattr(self, key)}, expected at least {value}")
    for key in ("temperature", "epsilon"):
      if not isinstance(getattr(self, key), Schedule) and not getattr(self, key) > 0:
        raise UserError(f"swav.SwAV: {key} {getattr(self, key)}, expected more than 0")

  @property
  def batch_keys(self) -> tuple[str, ...]:  # type: ignore[override]
    """Keys of the batch that `loss` reads: of the crops, the largest first."""
    return ("views", "local_views") if self.crops == "multi" else ("views",)

  @property
  def projector(self) -> MLPHead:
    """The head between the embedding and the prototypes."""
    return MLPHead(self.projector_hidden, self.projector_out, last_bias="present", dtype=self.encoder.dtype)

  @property
  def branch(self) -> Branch:
    """Encoder and projector."""
    return Branch(self.encoder, self.projector)

  def parts(self) -> dict[str, Part]:
    """Returns "encoder"."""
    return {"encoder": Part(self.encoder, "encoder", "stats/encoder")}

  def init(self, rng: Array, batch: Batch) -> tuple[Params, State]:
    """Returns parameters of "encoder", "projector" and "prototypes" f32[K,D], and {"stats"}, maybe with a "queue"."""
    crops = [batch[key] for key in self.batch_keys]
    check_crops(self.encoder, crops, where="swav.SwAV")
    count, views = batch["views"].shape[:2]
    if self.queue % count:
      raise UserError(f"swav.SwAV: queue {self.queue}, expected a multiple of the batch of {count}")
    keys = jax.random.split(rng)
    params, stats = self.branch.init(keys[0], batch["views"])
    prototypes = l2_normalize(jax.random.normal(keys[1], (self.prototypes, self.projector_out)))
    queue = {"queue": jnp.zeros((views, self.queue, self.projector_out))} if self.queue else {}
    return {**params, "prototypes": prototypes}, {"stats": stats, **queue}

  def loss(self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array) -> LossOutput:
    """Returns the loss, the mean entropy of assignments in nats, and how many prototypes the crops lie at.

    "swav/prototypes_used" is exp of the entropy of the mean prediction: 1 where all crops lie at one prototype.
    """
    keys = random.example_keys(rng, batch["index"])
    z, stats = self._project(params, state["stats"], [batch[key] for key in self.batch_keys], keys)
    scores = self._scores(z, params["prototypes"])
    views = batch["views"].shape[1]
    targets, queue = self._assign(params, state, z[:, :views], scores[:, :views], step)
    temperature = Schedule.of(self.temperature)(step)
    mean = jnp.mean(jax.nn.softmax(scores / temperature, axis=-1), axis=(0, 1))
    metrics = {"swav/entropy": jnp.mean(entropy(targets)), "swav/prototypes_used": jnp.exp(entropy(mean))}
    loss = dino_loss(scores, targets, temperature=temperature)
    return LossOutput(loss=loss, state={"stats": stats, **queue}, metrics=metrics)

  def _project(self, params: Params, stats: State, crops: list[Array], keys: Array) -> tuple[Array, State]:
    """Returns projections f32[B,V,D] of unit length; the projector normalises all crops together."""
    embeddings, encoder = embed_crops(self.encoder, params["encoder"], stats["encoder"], crops, keys=keys)
    z, projector = run(self.projector, params["projector"], stats["projector"], as_images(embeddings), train=True)
    return l2_normalize(as_views(z, embeddings.shape[1])), {"encoder": encoder, "projector": projector}

  def _scores(self, z: Array, prototypes: Array) -> Array:
    """Returns cosines f32[M,N,K] of projections z f32[M,N,D] and prototypes."""
    return precision.einsum("mnd,kd->mnk", z, prototypes, dtype=self.encoder.dtype)

  def _assign(self, params: Params, state: State, z: Array, scores: Array, step: Array) -> tuple[Array, State]:
    """Returns assignments f32[B,V,K] of the views, and the next queue with the newest projections in front."""
    options = {"epsilon": self.epsilon, "iterations": self.iterations}
    if not self.queue:
      return jax.vmap(lambda s: sinkhorn(s, **options), in_axes=1, out_axes=1)(scores), {}
    held = sharding.whole(state["queue"])
    # Projections go to every device, not their scores, which are many more numbers.
    known = jnp.concatenate([sharding.whole(jnp.moveaxis(jax.lax.stop_gradient(z), 1, 0)), held], axis=1)
    usable = (step >= self.queue_from) & jnp.any(held[:, -1] != 0)
    counted = (jnp.arange(known.shape[1]) < len(z)) | usable
    found = jax.vmap(lambda s: sinkhorn(s, **options, counted=counted))(self._scores(known, params["prototypes"]))
    return sharding.constrain(jnp.moveaxis(found[:, : len(z)], 1, 0)), {"queue": known[:, : self.queue]}

  def encode(self, params: Params, state: State, batch: Batch) -> dict[str, Array]:
    """Returns "embedding" f32[B,D] and "projection" f32[B,P] of unit length, with the running batch statistics."""
    found, _ = self.branch(params, state["stats"], batch["image"], train=False)
    return {"embedding": found["embedding"], "projection": l2_normalize(found["projection"])}

  def post_update(self, params: Params, state: State, *, step: Array) -> tuple[Params, State]:
    """Returns parameters with the prototypes at unit length, and the state."""
    del step
    return {**params, "prototypes": l2_normalize(params["prototypes"])}, state
