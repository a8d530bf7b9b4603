"""What evaluators of images with texts are given."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np


class PairFeatures(NamedTuple):
  """Features of held-out images and of all their texts, in one space and of unit length.

  Attributes:
    images: f32[N,D].
    texts: f32[M,D].
    owner: int32[M], the image each text belongs to.
    labels: int32[N], the images' classes; None where the source has none.
    class_names: the classes in label order; None where they have no names.
    encode: texts -> their features f32[T,D].
  """

  images: np.ndarray
  texts: np.ndarray
  owner: np.ndarray
  labels: np.ndarray | None
  class_names: tuple[str, ...] | None
  encode: Callable[[Sequence[str]], np.ndarray]
