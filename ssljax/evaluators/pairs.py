"""What evaluators of images with texts are given."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np


class PairFeatures(NamedTuple):
  """Features of held-out images and of all their texts, in one space and of unit length.

  Attributes:
    images: f32[N,D].
    texts: f32[M,D].
    pairs: int64[P,2], which image goes with which text, image by image, an image's texts in their order.
    labels: int32[N], the images' classes; None where the source has none.
    class_names: the classes in label order; None where they have no names.
    captions: the M texts in words.
    encode: texts -> their features f32[T,D].
  """

  images: np.ndarray
  texts: np.ndarray
  pairs: np.ndarray
  labels: np.ndarray | None
  class_names: tuple[str, ...] | None
  captions: tuple[str, ...]
  encode: Callable[[Sequence[str]], np.ndarray]

  def first(self) -> "PairFeatures":
    """Returns the same with the first text of each image alone."""
    pairs = self.pairs[np.unique(self.pairs[:, 0], return_index=True)[1]]
    kept, numbers = np.unique(pairs[:, 1], return_inverse=True)
    return self._replace(
      texts=self.texts[kept],
      pairs=np.stack([pairs[:, 0], numbers], axis=1),
      captions=tuple(self.captions[text] for text in kept),
    )

  def relevant(self) -> tuple[list[set[int]], list[set[int]]]:
    """Returns the texts of each image and the images of each text."""
    texts: list[set[int]] = [set() for _ in self.images]
    images: list[set[int]] = [set() for _ in self.texts]
    for image, text in self.pairs.tolist():
      texts[image].add(text)
      images[text].add(image)
    return texts, images
