"""Held-out loss of a text model under each group of denoisers, in bits per byte."""

import dataclasses
import math
from typing import ClassVar

import numpy as np

from ssljax.data.mixture import GROUPS, Denoiser, named
from ssljax.evaluators.text import TextProbe, When


@dataclasses.dataclass(frozen=True, kw_only=True)
class BitsPerByte:
  """Bits per byte of held-out text under every group of a mixture, as `GROUP/bits_per_byte`.

  All nats of the targets, those of sentinels and ends of sequence too, over the bytes of text in them. The whole test
  split is corrupted once, the same way for every model (seed 0), by one group after the other.

  Attributes:
    mixture: which denoisers, by the mixture's name; those of the run are `data.text`'s.
    max_rows: rows a group at most; none: all.
  """

  when: ClassVar[When] = "always"
  mixture: str = "ul2"
  max_rows: int | None = None

  def __call__(self, probe: TextProbe) -> dict[str, float]:
    """Returns {"R/bits_per_byte": ..., ...}."""
    denoisers = named(self.mixture)
    groups = [group for group in GROUPS if any(denoiser.group == group for denoiser in denoisers)]
    return {
      f"{group}/bits_per_byte": self._measure(probe, tuple(d for d in denoisers if d.group == group))
      for group in groups
    }

  def _measure(self, probe: TextProbe, denoisers: tuple[Denoiser, ...]) -> float:
    mixture = probe.test.text.mix(denoisers)
    stream = probe.test.stream(seed=0, batch_size=probe.batch_size, mixture=mixture)
    rows = min(stream.plan(0).rows, self.max_rows or stream.plan(0).rows)
    nats = size = 0.0
    for start in range(0, rows, probe.batch_size):
      positions = np.arange(start, min(start + probe.batch_size, rows))
      arrays = {key: _padded(value, probe.batch_size) for key, value in stream.rows(positions).items()}
      found = probe.score(arrays)
      nats, size = nats + found[0], size + found[1]
    return nats / (math.log(2) * size)


def _padded(rows: np.ndarray, count: int) -> np.ndarray:
  return np.concatenate([rows, np.zeros((count - len(rows), *rows.shape[1:]), rows.dtype)])
