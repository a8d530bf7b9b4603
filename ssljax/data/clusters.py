"""Pseudo-labels: which cluster each record belongs to, and an order in which neighbours are of different clusters."""

import pathlib
import zipfile

import numpy as np

from ssljax.data.permutation import mix, permute, words
from ssljax.errors import UserError

KEYS = ("cluster", "source", "split")


class Clusters:
  """The cluster of each record, and the epochs of a stream that spreads every cluster evenly.

  Record number r (of n, drawn anew in each epoch) of a cluster lies at (r + u) / n of the epoch, u a number of the
  cluster's own between 0 and 1. K clusters of one size so take turns, always in the same order: any K positions in a
  row, such as a batch of K, hold one record of each. Of a cluster n times as large as the average, about n are in a
  batch. Every record is in every epoch once.

  Source: Chakraborty, Gosthipaty, Paul, "G-SimCLR: Self-Supervised Contrastive Learning with Guided Projection via
    Pseudo Labelling", 2020, arXiv 2009.12007.
  Differs from the reference: it takes the first record of all clusters, then the second, and so on, so that its last
    batches are of the largest clusters alone.
  """

  def __init__(self, labels: np.ndarray):
    """Takes labels int[N], the cluster of each record in the source's order, numbered from 0."""
    _, self.labels, self.sizes = np.unique(labels, return_inverse=True, return_counts=True)
    self._epochs: dict[tuple[int, int], np.ndarray] = {}

  def rows(self, positions: np.ndarray, *, seed: int) -> np.ndarray:
    """Returns the records int64[n] at positions int64[n] of the endless stream, for ever the same with one seed."""
    epochs, index = np.divmod(positions, len(self.labels))
    rows = np.empty_like(index)
    for epoch in np.unique(epochs):
      inside = epochs == epoch
      rows[inside] = self._epoch(seed, int(epoch))[index[inside]]
    return rows

  def _epoch(self, seed: int, epoch: int) -> np.ndarray:
    """Returns the order of an epoch int64[N]; the two last asked for are kept, 8 bytes a record each."""
    held = self._epochs.get((seed, epoch))
    if held is None:
      held = self._order(seed, epoch)
      self._epochs = dict([*self._epochs.items(), ((seed, epoch), held)][-2:])
    return held

  def _order(self, seed: int, epoch: int) -> np.ndarray:
    drawn = mix(words(seed, epoch, count=1) ^ np.arange(len(self.labels), dtype=np.uint64))
    by_cluster = np.lexsort((drawn, self.labels))
    number = np.empty(len(self.labels), np.int64)
    number[by_cluster] = np.arange(len(self.labels)) - np.repeat(np.cumsum(self.sizes) - self.sizes, self.sizes)
    # The same turn in every epoch, so that a batch across two epochs holds no cluster twice either.
    turn = (permute(np.arange(len(self.sizes)), size=len(self.sizes), key=(seed,)) + 0.5) / len(self.sizes)
    return np.argsort((number + turn[self.labels]) / self.sizes[self.labels], kind="stable")


def save(file: pathlib.Path, labels: np.ndarray, *, source: str, split: str) -> None:
  """Writes the clusters int[N] of the records of a source's split."""
  np.savez(file, cluster=labels.astype(np.int32), source=np.array(source), split=np.array(split))


def load(file: str, *, source: str, split: str, size: int) -> Clusters:
  """Returns the clusters in a file that `ssljax data clusters` wrote for this source and split of `size` records.

  Raises:
    UserError: no such file, another kind of file, or clusters of other records.
  """
  try:
    with np.load(file, allow_pickle=False) as held:
      found = {key: held[key] for key in KEYS}
  except FileNotFoundError as error:
    raise UserError(f"data.clusters: no file {file}; ssljax data clusters writes one") from error
  except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
    raise UserError(f"data.clusters: {file} holds no clusters, expected a file of ssljax data clusters") from error
  of = (str(found["source"]), str(found["split"]))
  if of != (source, split) or len(found["cluster"]) != size:
    records = f"{len(found['cluster'])} records of {of[0]}, split {of[1]}"
    raise UserError(f"data.clusters: {file} is of {records}, expected {size} of {source}, split {split}")
  return Clusters(found["cluster"])
