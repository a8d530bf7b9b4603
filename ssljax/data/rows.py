"""From planned examples to the arrays of a batch: all examples of all rows are corrupted and laid out at once.

Spans, not tokens, are computed with: each visible or hidden span is a run of the store that is copied to its place.
"""

from typing import NamedTuple

import numpy as np

from ssljax.data import denoising
from ssljax.data.mixture import GROUPS, Mixture
from ssljax.data.plan import Examples
from ssljax.data.vocabulary import Vocabulary


def layout(
  tokens: np.ndarray, examples: Examples, counts: np.ndarray, *, mixture: Mixture, vocabulary: Vocabulary
) -> dict[str, np.ndarray]:
  """Returns the arrays of B rows: those of `encoder_decoder` or of `decoder_only` (see below), padding 0.

  encoder_decoder   inputs, input_segments, input_positions int32[B,Li]; targets, target_segments, target_positions
                    int32[B,Lt]; an example's inputs are mode token, text, </s>, its targets text, </s>.
  decoder_only      targets, target_segments, target_positions int32[B,L], and prefix int32[B,L], 1 on the inputs
                    (mode token and text, no </s>), which are not to be predicted.
  both              target_group uint8[B,Lt] (place in `mixture.GROUPS`) and target_bytes uint8[B,Lt] (bytes of text
                    that a token stands for; 0 on sentinels, </s> and what is not predicted).

  Args:
    tokens: the store.
    examples: those of all rows, in the rows' order.
    counts: int64[B], examples of each row.
    mixture: lengths, layout, modes.
    vocabulary: ids.
  """
  visible, marks = examples.visible.astype(np.int64), examples.spans.astype(np.int64)
  hidden = examples.length - visible
  sizes = mixture.sizes(visible + hidden, visible, marks)
  if mixture.layout == "encoder_decoder":
    sources, targets = (_Rows(size, counts, width) for size, width in zip(sizes, mixture.capacity, strict=True))
    source, target = sources.begin, targets.begin
    predicted = targets.filled
  else:
    targets = _Rows(sizes.inputs + sizes.targets, counts, mixture.capacity[0])
    source, target = targets.begin, targets.begin + sizes.inputs
    predicted = targets.filled & (targets.positions >= targets.spread(sizes.inputs, np.int32))

  modes = [mixture.mode(denoiser) for denoiser in mixture.denoisers]
  spans = denoising.random_spans(examples.key, visible, hidden, marks)
  of, before, marked = spans.example, np.maximum(spans.number, 0), spans.number >= 0
  seen = source[of] + any(modes) + spans.visible + before
  asked = target[of] + spans.hidden + before + marked
  seen_runs = _Runs(seen, examples.begin[of] + spans.visible + spans.hidden, spans.visible_end - spans.visible)
  asked_runs = _Runs(asked, examples.begin[of] + spans.visible_end + spans.hidden, spans.hidden_end - spans.hidden)
  sentinels = vocabulary.last_sentinel - spans.number[marked]
  given = [((seen + seen_runs.length)[marked], sentinels)]
  wanted = [((asked - 1)[marked], sentinels), (target + sizes.targets - 1, vocabulary.eos)]
  if any(modes):
    given.append((source, np.array([vocabulary.mode(mode) for mode in modes])[examples.denoiser]))

  if mixture.layout == "encoder_decoder":
    given.append((source + sizes.inputs - 1, vocabulary.eos))
    arrays = {
      "inputs": sources.fill(tokens, [seen_runs], given),
      "input_segments": sources.segments,
      "input_positions": sources.positions,
    }
    ids = targets.fill(tokens, [asked_runs], wanted)
  else:
    arrays = {"prefix": (targets.filled & ~predicted).astype(np.int32)}
    ids = targets.fill(tokens, [seen_runs, asked_runs], given + wanted)
  group = np.array([GROUPS.index(denoiser.group) for denoiser in mixture.denoisers])[examples.denoiser]
  return arrays | {
    "targets": ids,
    "target_segments": targets.segments,
    "target_positions": targets.positions,
    "target_group": targets.spread(group, np.uint8),
    "target_bytes": vocabulary.bytes_of.take(ids) * predicted,
  }


class _Runs(NamedTuple):
  """Runs of the store's tokens and where they go; int64[S] each: place in the rows, place in the store, tokens."""

  to: np.ndarray
  begin: np.ndarray
  length: np.ndarray


class _Rows:
  """Where examples lie in rows of one width: one after the other, in the order given.

  Attributes:
    begin: int64[P], each example's place, counted through all rows.
    segments: int32[B,L], the example's number in its row, from 1; 0: padding.
    positions: int32[B,L], the token's number in its example; 0 in padding.
    filled: bool[B,L], not padding.
  """

  def __init__(self, sizes: np.ndarray, counts: np.ndarray, width: int):
    self._shape, ends = (len(counts), width), np.cumsum(counts)
    row = np.repeat(np.arange(len(counts)), counts)
    self._slot = np.arange(len(sizes)) + row  # among the examples with each row's padding after its last
    used = np.diff(np.cumsum(sizes)[ends - 1], prepend=0)
    self._lengths = np.empty(len(sizes) + len(counts), np.int64)
    self._lengths[self._slot], self._lengths[ends + np.arange(len(counts))] = sizes, width - used
    places = np.cumsum(self._lengths) - self._lengths
    self.begin = places[self._slot]
    self.segments = self.spread(np.arange(len(sizes)) - (ends - counts)[row] + 1, np.int32)
    self.filled = self.segments > 0
    begin = np.repeat(places.astype(np.int32), self._lengths).reshape(self._shape)
    self.positions = (np.arange(begin.size, dtype=np.int32).reshape(self._shape) - begin) * self.filled

  def spread(self, values: np.ndarray, dtype: type) -> np.ndarray:
    """Returns [B,L] of `dtype`: each example's value on all its tokens, 0 on padding."""
    padded = np.zeros(len(self._lengths), dtype)
    padded[self._slot] = values
    return np.repeat(padded, self._lengths).reshape(self._shape)

  def fill(
    self, tokens: np.ndarray, runs: list[_Runs], single: list[tuple[np.ndarray, np.ndarray | int]]
  ) -> np.ndarray:
    """Returns int32[B,L] with runs of `tokens` and single ids at their places, 0 on padding."""
    to, begin, length = (np.concatenate(parts) for parts in zip(*runs, strict=True))
    order = np.flatnonzero(length)
    order = order[np.argsort(to[order], kind="stable")] if len(runs) > 1 else order
    ahead = begin[order] - to[order]  # how far a run lies behind its place
    step = np.ones(self.filled.size, np.int64)
    step[to[order]] += np.diff(ahead, prepend=0)
    step[0] -= 1
    ids = tokens.take(np.cumsum(step), mode="clip").astype(np.int32)
    for place, value in single:
      ids[place] = value
    return ids.reshape(self._shape) * self.filled
