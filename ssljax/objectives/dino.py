"""DINO: a student's crops are to say what its moving average says of another view of the picture."""

import dataclasses
from typing import final

import jax
import jax.numpy as jnp

from ssljax import rng as random
from ssljax.losses.self_distillation import dino_loss, entropy
from ssljax.models.crops import embed_crops
from ssljax.objectives.self_distilled import _SelfDistilled
from ssljax.schedules import Schedule
from ssljax.types import Array, Batch, LossOutput, Params, State


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class DINO(_SelfDistilled):
  """Gives every crop scores over prototypes, and holds the student's to the teacher's of another view.

      p_q   = softmax((teacher(view q) - center) / teacher_temperature)
      loss  = mean over views q and crops v != q of -sum_k p_qk log softmax(student(crop v) / student_temperature)_k
      teacher <- decay teacher + (1 - decay) student,  center <- ...     after the optimiser

  The teacher sees the views alone, and drops no paths. Its temperature (low: sharp) and the centre keep two collapses
  away: "dino/entropy" falls to 0 where one prototype takes all, and rises to log K where all are alike; "dino/kl" is 0
  in both. In the paper the prototypes stand still in the first epoch (`optimizer.hold=(("prototypes", "1ep"),)`),
  gradients are clipped by parameter, decay grows by `schedules.cosine(peak=0.996, end=1.0)`, and the teacher's
  temperature may by `schedules.linear(peak=0.04, end=0.07)`.

  Attributes:
    encoder: gives "embedding" f32[B,D] of images.
    crops: "multi": views and local views; "views": these alone.
    prototypes: how many scores, the paper's output dimension K.
    head_hidden, head_bottleneck, head_layers: size of the head, as in `dino_head.DINOHead`.
    student_temperature, teacher_temperature: what scores are divided by.
    decay: of the teacher.
    centering: "ema": less a running mean; "sinkhorn": filled evenly in the batch, as DINOv2's large models.
    center_decay: of the running mean.
    sinkhorn_iterations: turns of Sinkhorn.

  Raises:
    UserError: a number out of range, an unknown choice; in `init`, a batch of one example, one view, or local views
      that the encoder cannot see.

  Source: Caron, Touvron, Misra, Jégou, Mairal, Bojanowski, Joulin, "Emerging Properties in Self-Supervised Vision
    Transformers", 2021, arXiv 2104.14294.
  Differs from the reference: prototypes always count by their direction (its `norm_last_layer`). A ViT's positions are
    fixed sines, where the reference interpolates learnt ones for local views.
  """

  def loss(self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array) -> LossOutput:
    """Returns the loss, the mean entropy of the teacher's probabilities, and the rest, a divergence; both in nats."""
    keys = random.example_keys(rng, batch["index"])
    crops = [batch[key] for key in self.batch_keys]
    embeddings, stats = embed_crops(self.encoder, params["encoder"], state["stats"]["encoder"], crops, keys=keys)
    targets, taught = self._teach(state, crops[0], step)
    loss = dino_loss(self._score(params, embeddings), targets, temperature=self.student_temperature)
    sure = jnp.mean(entropy(targets))
    metrics = {"dino/entropy": sure, "dino/kl": loss - sure}
    return LossOutput(loss=loss, state={**state, "stats": {"encoder": stats}, **taught}, metrics=metrics)

  def _teach(self, state: State, views: Array, step: Array) -> tuple[Array, State]:
    """Returns the teacher's probabilities f32[B,V,K] of views f32[B,V,H,W,C], and what changed in the state."""
    teacher = jax.lax.stop_gradient(state["teacher"])
    embeddings, stats = embed_crops(self.encoder, teacher["encoder"], state["teacher_stats"]["encoder"], [views])
    temperature = Schedule.of(self.teacher_temperature)(step)
    scores = self._score(teacher, embeddings)
    targets, center = self._centering(state["center"]["cls"], scores, temperature=temperature)
    return targets, {"teacher_stats": {"encoder": stats}, "center": {"cls": center}}
