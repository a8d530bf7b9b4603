"""Zero-shot classification: classes are sentences, a picture goes to the nearest."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np

from ssljax.errors import UserError
from ssljax.evaluators.pairs import PairFeatures

# The seven that CLIP's authors found to do as well as their eighty.
PROMPTS = (
  "itap of a {}.",
  "a bad photo of the {}.",
  "a origami {}.",
  "a photo of the large {}.",
  "a {} in a video game.",
  "art of the {}.",
  "a photo of the small {}.",
)


def class_vectors(
  encode: Callable[[Sequence[str]], np.ndarray], names: Sequence[str], prompts: Sequence[str]
) -> np.ndarray:
  """Returns one vector a class, f32[C,D]: of its name in every prompt the feature at length 1, their mean at length 1.

  Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021, arXiv
    2103.00020, section 3.1.4.
  """
  texts = [prompt.format(name) for name in names for prompt in prompts]
  features = _unit(encode(texts)).reshape(len(names), len(prompts), -1)
  return _unit(features.mean(axis=1))


@dataclasses.dataclass(frozen=True)
class ZeroShot:
  """Accuracy of the nearest class by cosine, as `zero_shot`, with chance and the largest class' share beside it.

  Attributes:
    prompts: sentences with {} where the class' name goes.
    names: the classes in label order; None: the source's own names.
  """

  prompts: tuple[str, ...] = PROMPTS
  names: tuple[str, ...] | None = None
  reads: ClassVar[str] = "pairs"

  def __post_init__(self):
    if not self.prompts:
      raise UserError("zero_shot.ZeroShot: prompts is empty, expected sentences with {} where the name goes")
    if wrong := [prompt for prompt in self.prompts if prompt.count("{}") != 1]:
      raise UserError(f"zero_shot.ZeroShot: prompts {wrong[0]!r}, expected one {{}} where the name goes")

  def __call__(self, features: PairFeatures) -> dict[str, float]:
    """Returns accuracy on the held-out images, 1 / classes, and the share of the most frequent class.

    Raises:
      UserError: images without labels, or classes without names.
    """
    names = self.names or features.class_names
    if features.labels is None or names is None:
      raise UserError("zero_shot.ZeroShot: the source has no labels with names, expected both (or names)")
    if len(names) <= int(features.labels.max()):
      raise UserError(f"zero_shot.ZeroShot: names has {len(names)}, labels go up to {int(features.labels.max())}")
    vectors = class_vectors(features.encode, names, self.prompts)
    right = np.argmax(features.images @ vectors.T, axis=1) == features.labels
    most = np.bincount(features.labels).max() / len(features.labels)
    return {"zero_shot": float(right.mean()), "zero_shot_chance": 1 / len(names), "zero_shot_majority": float(most)}


def _unit(x: np.ndarray) -> np.ndarray:
  return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
