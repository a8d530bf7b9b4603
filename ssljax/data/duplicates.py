"""Pictures that are in two sets: what a test set must not share with the pictures a model was trained on."""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ssljax.data.source import Source

_READ = 256  # records a read


class Duplicate(NamedTuple):
  """A row of the test set whose picture is also a row of the training set, and both their names in a log."""

  test: int
  train: int
  test_name: str
  train_name: str


def duplicates(train: Source, test: Source) -> list[Duplicate]:
  """Returns each picture of `test` whose decoded canvas is, bit for bit, one of `train`, in the order of `test`.

  Both are read once, so it takes as long as decoding them. Both must have one canvas size; a smaller one finds more:
  it is of small canvases that pictures encoded twice may still be equal. What cannot be decoded is left out.
  """
  assert train.image_size == test.image_size, (train.image_size, test.image_size)
  wanted = {row: digest for row, digest in _digests(test)}
  held = set(wanted.values())
  first: dict[bytes, int] = {}
  for row, digest in _digests(train):
    if digest in held:
      first.setdefault(digest, row)
  found = ((row, first[digest]) for row, digest in wanted.items() if digest in first)
  return [Duplicate(row, other, test.name(row), train.name(other)) for row, other in found]


def _digests(source: Source) -> Iterator[tuple[int, bytes]]:
  """Yields (row, 128-bit hash of its canvas) of each record that can be decoded."""
  for start in range(0, len(source), _READ):
    arrays, errors = source.read(np.arange(start, min(start + _READ, len(source))))
    for i, image in enumerate(arrays["image"]):
      if i not in errors:
        yield start + i, hashlib.blake2b(image.tobytes(), digest_size=16).digest()
