"""CTP: image-text pretraining on a stream of tasks, held to the relations that the model before saw in each batch."""

import dataclasses
import math
from typing import final

import jax
import jax.numpy as jnp

from ssljax import sharding
from ssljax.errors import UserError
from ssljax.losses.contrastive import in_batch_nats, l2_normalize
from ssljax.losses.distillation import topology_losses
from ssljax.objectives.clip import _ImageText
from ssljax.objectives.lwf import previous_model
from ssljax.objectives.wrapper import _Wrapper
from ssljax.schedules import Schedule
from ssljax.types import Array, Batch, LossOutput, Params, State

KEPT = ("previous", "previous_state", "momentum", "queue", "task")
Features = tuple[Array, Array]


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class CTP(_Wrapper):
  """Adds to CLIP's or SigLIP's loss compatible momentum contrast and topology preservation.

      loss = objective's loss + contrast + weight * (cross + same)

  contrast: each image among the momentum model's texts, of the batch and of a queue, and each text among its images,
  as cross entropies, averaged. The momentum model m moves before every loss, in task 0 after the model f alone, from
  then on after f and the model r that the task began with, so that it goes with both:

      m <- momentum m + (1 - momentum) f                       task 0
      m <- momentum m + (1 - momentum) (f + r) / 2             later

  cross and same: how far the relations within the batch went from those r sees (`losses.distillation`); 0 in task 0,
  where r is not computed. A batch's task is the largest number in its `task` int32[B], as for `lwf.LwF`.

  Attributes:
    objective: a `clip.CLIP` or `clip.SigLIP`.
    weight: of the topology.
    momentum: of the momentum model from the second task on.
    first_momentum: of the momentum model in task 0.
    temperature: what cosines are divided by in what is added; the objective's own is learnt.
    queue: how many texts and images of the batches before are kept, as the momentum model saw them.

  Raises:
    UserError: another objective, a number out of range.

  Source: Zhu, Wei, Liang, Zhang, Zhao, "CTP: Towards Vision-Language Continual Pretraining via Compatible Momentum
    Contrast and Topology Preservation", 2023, arXiv 2308.07146.
  Differs from the reference: no masked language modelling and no distillation of it. Beside the queue the contrast
    sees the momentum model's features of the whole batch, in the released code those of one device. Where a tower has
    batch statistics, the momentum model and r normalise by gathered ones.
  """

  weight: float | Schedule = 1.0
  momentum: float = 0.9
  first_momentum: float = 0.995
  temperature: float = 0.07
  queue: int = 1024

  def __post_init__(self):
    if not isinstance(self.objective, _ImageText):
      raise UserError(f"ctp.CTP: objective {type(self.objective).__name__}, expected clip.CLIP or clip.SigLIP")
    if not isinstance(self.weight, Schedule) and not 0 <= self.weight < math.inf:
      raise UserError(f"ctp.CTP: weight {self.weight}, expected a finite number, 0 or more")
    for key in ("momentum", "first_momentum"):
      if not 0 <= getattr(self, key) <= 1:
        raise UserError(f"ctp.CTP: {key} {getattr(self, key)}, expected a number from 0 to 1")
    if not self.temperature > 0:
      raise UserError(f"ctp.CTP: temperature {self.temperature}, expected more than 0")
    if self.queue < 1:
      raise UserError(f"ctp.CTP: queue {self.queue}, expected at least 1")

  def check_texts(self, *, size: int, end: int) -> None:
    """Checks what the objective checks of its texts."""
    self.objective.check_texts(size=size, end=end, where="objective.objective")

  def init(self, rng: Array, batch: Batch) -> tuple[Params, State]:
    """Returns the objective's parameters, and its state with two copies of them, random queues, and task 0."""
    keys = jax.random.split(rng, 3)
    params, inner = self.objective.init(keys[0], batch)
    width = self.objective.model.image.features
    image, text = (l2_normalize(jax.random.normal(key, (self.queue, width))) for key in keys[1:])
    return params, self._state(inner, params, {"image": image, "text": text}, jnp.zeros((), jnp.int32))

  def imported(self, params: Params, state: State) -> State:
    """Returns the state with both copies those that came in."""
    inner = self.objective.imported(params, state["objective"])
    return self._state(inner, params, state["queue"], state["task"])

  def _state(self, inner: State, params: Params, queue: dict[str, Array], task: Array) -> State:
    copy = lambda: jax.tree.map(jnp.array, params)
    previous = {"previous": copy(), "previous_state": jax.tree.map(jnp.array, inner)}
    return {"objective": inner, **previous, "momentum": copy(), "queue": queue, "task": task}

  def loss(self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array) -> LossOutput:
    """Returns the sum; `weight` is the objective's."""
    inner = state["objective"]
    out, features = self.objective.loss_and_features(params, inner, batch, rng=rng, step=step)
    previous, task = previous_model(params, state, jnp.max(batch["task"]))
    momentum = self._moved(state["momentum"], params, previous[0], task)
    keys = jax.lax.stop_gradient(self._features(momentum, inner, batch))
    contrast, queue = self._contrast(features, keys, state["queue"])
    cross, same = self._topology(features, previous, batch, task)
    return LossOutput(
      loss=out.loss + contrast + Schedule.of(self.weight)(step) * (cross + same),
      state=dict(zip(("objective", *KEPT), (out.state, *previous, momentum, queue, task), strict=True)),
      metrics=out.metrics | {"ctp/contrast": contrast, "ctp/cross": cross, "ctp/same": same},
      weight=out.weight,
    )

  def _features(self, params: Params, inner: State, batch: Batch) -> Features:
    found = self.objective.encode(params, inner, batch)
    return found["image_features"], found["text_features"]

  def _moved(self, momentum: Params, params: Params, previous: Params, task: Array) -> Params:
    """Returns the momentum model after its move."""
    rate = 1 - jnp.where(task > 0, self.momentum, self.first_momentum)

    def one(held: Array, now: Array, before: Array) -> Array:
      return held + rate * (jnp.where(task > 0, 0.5 * (now + before), now) - held)

    return jax.lax.stop_gradient(jax.tree.map(one, momentum, params, previous))

  def _contrast(self, features: Features, keys: Features, queue: State) -> tuple[Array, State]:
    """Returns the momentum contrast f32[] and the queues with the newest keys in front."""
    (image, text), (image_key, text_key) = features, keys
    known = {"image": image_key, "text": text_key}
    # Every device needs them all; left to the compiler, keys would be exchanged to lie as the queue's parts do.
    join = lambda *parts: sharding.whole(jnp.concatenate([sharding.whole(part) for part in parts]))
    known = {name: join(key, queue[name]) for name, key in known.items()}
    nats = [
      in_batch_nats(query, known[name], scale=1 / self.temperature)
      for query, name in ((image, "text"), (text, "image"))
    ]
    return 0.5 * (jnp.mean(nats[0]) + jnp.mean(nats[1])), {name: held[: self.queue] for name, held in known.items()}

  def _topology(
    self, features: Features, previous: tuple[Params, State], batch: Batch, task: Array
  ) -> tuple[Array, Array]:
    """Returns the two losses f32[]; in task 0 zeros, and the previous model is not computed."""
    nothing = lambda: jax.tree.map(jnp.zeros_like, features)
    before = jax.lax.cond(task > 0, lambda: self._features(*previous, batch), nothing)
    losses = topology_losses(*features, *before, temperature=self.temperature)
    return tuple(jnp.where(task > 0, loss, 0.0) for loss in losses)
