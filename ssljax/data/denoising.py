"""Span corruption and prefix splits: what UL2's denoisers do to token sequences, many examples at once.

Examples lie one after the other in a flat array; `lengths` says where they end. All randomness comes from one 64-bit
key an example, so neither the batch nor the worker an example is in changes how it is corrupted.

Source: Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer", 2019,
arXiv 1910.10683; Tay et al., "UL2: Unifying Language Learning Paradigms", 2022, arXiv 2205.05131.
"""

from typing import NamedTuple

import numpy as np

from ssljax.data.permutation import mix
from ssljax.errors import UserError

_COLUMN_BITS, _RANDOM_BITS = 16, 28  # one sorted word: 20 bits of example, random bits, 16 bits of place
_GOLDEN_RATIO = np.uint64(0x9E3779B97F4A7C15)
MAX_LENGTH, MAX_EXAMPLES = 1 << _COLUMN_BITS, 1 << (64 - _COLUMN_BITS - _RANDOM_BITS)


def noise_counts(lengths: np.ndarray, *, density: float, mean_span: float) -> tuple[np.ndarray, np.ndarray]:
  """Returns (hidden tokens, hidden spans), two int64[N], for examples of `lengths` int64[N] tokens.

  n = clip(round(L density), 1, L - 1) with L at least 2, spans = max(round(n / mean_span), 1), halves to even.
  Differs from the reference: never more spans than there are tokens to keep them apart.
  """
  length = np.maximum(lengths, 2)
  noise = np.clip(np.rint(length * density).astype(np.int64), 1, length - 1)
  spans = np.maximum(np.rint(noise / mean_span).astype(np.int64), 1)
  return noise, np.minimum(spans, np.minimum(noise, length - noise))


def span_lengths(inputs_length: int, *, density: float, mean_span: float) -> tuple[int, int]:
  """Returns (tokens, targets): the longest text whose corrupted form fits `inputs_length`, and its targets' length.

  A sentinel a span is counted on both sides, and one end of sequence. At density 0.5 the text is a token shorter
  where the targets would outgrow the inputs. (T5's `random_spans_helper`.)

  Raises:
    UserError: no text fits.
  """

  def sizes(tokens: int) -> tuple[int, int]:
    noise = round(tokens * density)
    spans = round(noise / mean_span)
    return tokens - noise + spans + 1, noise + spans + 1

  tokens = inputs_length - 1
  while sizes(tokens + 1)[0] <= inputs_length:
    tokens += 1
  inputs, targets = sizes(tokens)
  if tokens < 2:
    raise UserError(f"inputs_length: found {inputs_length}, too short for density {density} and spans of {mean_span}")
  return (tokens - 1, targets - 1) if density == 0.5 and targets > inputs else (tokens, targets)


class Spans(NamedTuple):
  """Where kept and hidden spans begin and end, of all examples together; positions in the flat array, int64[S] each.

  Attributes:
    number: the span's number in its example, from 0.
    kept: where the kept span begins.
    hidden: where the hidden span that follows it begins.
    end: where that one ends.
  """

  number: np.ndarray
  kept: np.ndarray
  hidden: np.ndarray
  end: np.ndarray


def random_spans(keys: np.ndarray, lengths: np.ndarray, noise: np.ndarray, spans: np.ndarray) -> Spans:
  """Returns kept and hidden spans that take turns, kept first, their lengths uniform among all that add up.

  Args:
    keys: uint64[N].
    lengths: int64[N], tokens.
    noise: int64[N], tokens hidden.
    spans: int64[N], hidden spans; as many are kept.
  """
  hidden = _compositions(keys, noise, spans)
  kept = _compositions(mix(keys), lengths - noise, spans)
  offset = np.repeat(np.cumsum(lengths) - lengths, spans)
  begin = offset + kept.begin + hidden.begin
  return Spans(hidden.number, begin, begin + kept.length, begin + kept.length + hidden.length)


class _Parts(NamedTuple):
  number: np.ndarray
  begin: np.ndarray
  length: np.ndarray


def _compositions(keys: np.ndarray, totals: np.ndarray, counts: np.ndarray) -> _Parts:
  """Returns each total cut into `counts` positive parts, uniformly: the cuts are the smallest of its random words."""
  if len(keys) > MAX_EXAMPLES or (len(totals) and totals.max() >= MAX_LENGTH):
    raise UserError(f"denoising: at most {MAX_EXAMPLES:,} examples of less than {MAX_LENGTH:,} tokens at once")
  example, place = _ragged(totals - 1)
  random = mix(keys[example] + (place + 1).astype(np.uint64) * _GOLDEN_RATIO) >> np.uint64(64 - _RANDOM_BITS)
  words = (example.astype(np.uint64) << np.uint64(_RANDOM_BITS)) | random
  words = np.sort((words << np.uint64(_COLUMN_BITS)) | place.astype(np.uint64))
  example, number = _ragged(counts - 1)
  chosen = words[(np.cumsum(totals - 1) - (totals - 1))[example] + number]
  cuts = np.sort((example << _COLUMN_BITS) | (chosen & np.uint64(MAX_LENGTH - 1)).astype(np.int64))
  example, number = _ragged(counts)
  begin = np.zeros(len(example), np.int64)
  begin[number > 0] = (cuts & (MAX_LENGTH - 1)) + 1
  end = np.append(begin[1:], 0)
  last = number == counts[example] - 1
  end[last] = totals
  return _Parts(number, begin, end - begin)


def _ragged(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns (row, column) of every cell of a table whose row i has counts[i] cells, row by row; two int64[sum]."""
  row = np.repeat(np.arange(len(counts)), counts)
  return row, np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)


def noise_mask(rng: np.random.Generator, length: int, *, density: float, mean_span: float) -> np.ndarray:
  """Returns bool[length], True where a token is hidden: it starts visible and ends hidden.

  (T5's `random_spans_noise_mask`; other random numbers, the same distribution.)
  """
  if density == 0 or length < 2:
    return np.zeros(length, bool)
  lengths = np.array([length])
  noise, spans = noise_counts(lengths, density=density, mean_span=mean_span)
  key = rng.integers(0, 2**63, size=1).astype(np.uint64)
  return _mask(random_spans(key, lengths, noise, spans), length)


def _mask(spans: Spans, size: int) -> np.ndarray:
  change = np.zeros(size + 1, np.int8)
  change[spans.hidden] += 1
  change[spans.end] -= 1
  return np.cumsum(change[:-1], dtype=np.int8).astype(bool)


def split_spans(tokens: np.ndarray, spans: Spans, *, last_sentinel: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns (inputs, targets): hidden spans replaced by sentinels, and kept spans replaced by sentinels.

  Span k's sentinel is last_sentinel - k; a span without a number (`prefix_spans`) leaves none.
  """
  mask, marked = _mask(spans, len(tokens)), spans.number >= 0
  inputs, keep = tokens.copy(), ~mask
  inputs[spans.hidden[marked]], keep[spans.hidden[marked]] = last_sentinel - spans.number[marked], True
  targets, hide = tokens.copy(), mask.copy()
  targets[spans.kept[marked]], hide[spans.kept[marked]] = last_sentinel - spans.number[marked], True
  return inputs[keep], targets[hide]


def corrupt(tokens: np.ndarray, mask: np.ndarray, *, last_sentinel: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns (inputs, targets) of one example, without end of sequence, for tokens int[L] and mask bool[L].

  Each hidden span becomes one sentinel in the inputs, each visible span one in the targets; sentinels count down from
  `last_sentinel` on either side. (T5's `noise_span_to_unique_sentinel` and its mirror image.)
  """
  return _to_sentinels(tokens, mask, last_sentinel), _to_sentinels(tokens, ~mask, last_sentinel)


def _to_sentinels(tokens: np.ndarray, mask: np.ndarray, last_sentinel: int) -> np.ndarray:
  first = mask & ~np.append(False, mask[:-1])
  replaced = np.where(first, last_sentinel - np.cumsum(first) + 1, tokens)
  return replaced[first | ~mask].astype(tokens.dtype)


def restore(inputs: np.ndarray, targets: np.ndarray, *, last_sentinel: int, spans: int) -> np.ndarray:
  """Returns the tokens that `corrupt` was given: the targets' spans put where the inputs' sentinels are.

  Args:
    inputs: int[I], without end of sequence and mode token.
    targets: int[T], without end of sequence.
    last_sentinel: the first sentinel's id.
    spans: how many ids below it are sentinels.
  """

  def pieces(ids: np.ndarray) -> list[np.ndarray]:
    return np.split(ids, np.flatnonzero((ids <= last_sentinel) & (ids > last_sentinel - spans)))

  visible, hidden = pieces(inputs), pieces(targets)
  parts = [visible[0]]
  for k in range(1, max(len(visible), len(hidden))):
    parts += [hidden[k][1:]] if k < len(hidden) else []
    parts += [visible[k][1:]] if k < len(visible) else []
  return np.concatenate(parts)


def prefix_lengths(keys: np.ndarray, lengths: np.ndarray, *, density: float) -> np.ndarray:
  """Returns how many tokens of each example are its prefix, int64[N]: uniform in [min, L - 1].

  min = clip(round((1 - 2 density) (L - 1)), 1, L - 1), so the targets are `density` of the text on average; density 1
  leaves no prefix (a causal language model). An example of one token has none.

  Raises:
    UserError: a density above one half that is not 1.

  (T5's `random_prefix_noise_mask`.)
  """
  if density == 1:
    return np.zeros(len(lengths), np.int64)
  if not 0 < density <= 0.5:
    raise UserError(f"density: found {density} for a prefix, expected more than 0 and at most 0.5, or 1 (no prefix)")
  most = np.maximum(lengths - 1, 1)
  least = np.clip(np.rint((1 - 2 * density) * (lengths - 1)).astype(np.int64), 1, most)
  random = (mix(keys) >> np.uint64(32)).astype(np.float64) / 2**32
  return np.where(lengths < 2, 0, least + np.floor(random * (most - least + 1)).astype(np.int64))


def prefix_spans(lengths: np.ndarray, prefix: np.ndarray) -> Spans:
  """Returns each example as one visible span, its prefix, and one hidden span, the rest; no sentinels (number -1)."""
  offset = np.cumsum(lengths) - lengths
  return Spans(np.full(len(lengths), -1), offset, offset + prefix, offset + lengths)
