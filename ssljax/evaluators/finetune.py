"""Fine-tuning with few labels: the settings, and which examples keep theirs. `training.finetune` does it."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from flax import linen as nn

from ssljax.data.permutation import permute
from ssljax.errors import UserError
from ssljax.evaluators.text import When


def choose(labels: np.ndarray, *, share: float, seed: int) -> np.ndarray:
  """Returns the rows int64[n] that keep their labels, as even over the classes as these allow.

  n is `share` of the labelled rows, at least one of each class. The rows of a class come in an order of the seed's; the
  first of every class are taken, then the second, and so on: the rows of a smaller share are among those of a larger.

  Args:
    labels: int[N], -1 where there is none.
    share: 0 to 1.
    seed: decides the order.
  """
  order = permute(np.arange(len(labels)), size=len(labels), key=(seed,))
  order = order[labels[order] >= 0]
  by_class = np.argsort(labels[order], kind="stable")
  first = np.searchsorted(labels[order][by_class], labels[order])
  turn = np.empty(len(order), np.int64)  # how many of its class come before a row
  turn[by_class] = np.arange(len(order)) - first[by_class]
  count = max(round(share * len(order)), len(np.unique(labels[order])))
  return order[np.argsort(turn, kind="stable")[:count]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distillation:
  """A smaller network that learns from the fine-tuned one, on all training pictures without their labels.

  Attributes:
    encoder: of the student, which starts untrained.
    steps: how long; None: as long as the fine-tuning.
    temperature: what the logits of both are divided by.
    learning_rate: its peak; None: that of the fine-tuning.
  """

  encoder: nn.Module
  steps: int | None = None
  temperature: float = 1.0
  learning_rate: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTune:
  """Accuracy of the whole network after training on some of the labels: from scratch, pretrained, distilled.

  "finetune/0.01/pretrained" is the accuracy (0..1) on the test split with 1 % of the labels, "scratch" that of the same
  network and training from the run's own untrained encoder, "distilled" that of the student, "examples" the number of
  labels. AdamW, a cosine to 0 after a tenth of the steps of warm-up, the same number of steps for every share. It is
  called when it is asked for by name: `ssljax eval --evals=finetune`.

  Attributes:
    shares: of the labelled training examples, class-balanced (`choose`).
    steps: optimiser steps for each share.
    batch_size: examples a step; with fewer labels than that an example comes more than once.
    learning_rate: its peak.
    weight_decay: of AdamW.
    layer_decay: factor on the learning rate from layer to layer down, of the pretrained network alone (MAE 0.65 to
      0.75); None: one rate.
    smoothing: of the labels.
    projector_layers: first layers of the pretraining's projector that stay between encoder and head (SimCLR v2: 1).
    part: the encoder's name among the objective's parts, with a path inside of it where it is within a larger one
      ("model/image/encoder" of CLIP).
    recipe: the augmentation, one of `views.Views` with one view, at the size and pixel statistics of the run's own;
      mae has random crops (0.2 to 1 of the area) and mirror images.
    augment: a section of `augment` in its place.
    seed: of the chosen rows, their order, the crops and the head.
    distill: a student of each share's network; None: none.

  Raises:
    UserError: a number out of range.

  Source: Chen, Kornblith, Swersky, Norouzi, Hinton, Big Self-Supervised Models are Strong Semi-Supervised Learners,
    2020, arXiv 2006.10029.
  Differs from the reference: steps, not epochs, so that every share costs the same; AdamW instead of LARS.
  """

  reads: ClassVar[str] = "run"
  when: ClassVar[When] = "asked"
  shares: tuple[float, ...] = (0.01, 0.1, 1.0)
  steps: int = 300
  batch_size: int = 128
  learning_rate: float = 1e-3
  weight_decay: float = 0.05
  layer_decay: float | None = None
  smoothing: float = 0.1
  projector_layers: int = 0
  part: str = "encoder"
  recipe: str = "mae"
  augment: Mapping[str, Any] | None = None
  seed: int = 0
  distill: Distillation | None = None

  def __post_init__(self):
    if not self.shares or not all(0 < share <= 1 for share in self.shares):
      raise UserError(f"finetune.FineTune: shares {self.shares}, expected shares of the labels, above 0 to 1")
    least = {"steps": 1, "batch_size": 1, "projector_layers": 0, "weight_decay": 0, "seed": 0}
    for key, value in least.items():
      if not getattr(self, key) >= value:
        raise UserError(f"finetune.FineTune: {key} {getattr(self, key)}, expected at least {value}")
    if not 0 < self.learning_rate < float("inf"):
      raise UserError(f"finetune.FineTune: learning_rate {self.learning_rate}, expected a finite number above 0")
    if self.distill is not None and self.distill.steps is not None and self.distill.steps < 1:
      raise UserError(f"finetune.FineTune: distill.steps {self.distill.steps}, expected at least 1")

  def __call__(self, features: Any) -> dict[str, float]:
    """Raises UserError: it reads a run on labelled pictures, not features, nor text."""
    del features
    raise UserError("finetune.FineTune: trains on labelled pictures, this run reads something else")
