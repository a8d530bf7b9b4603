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

_GOLDEN_RATIO = np.uint64(0x9E3779B97F4A7C15)
MAX_LENGTH = 1 << 16  # tokens of an example; places are drawn with 32 bits


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
  """Visible and hidden spans of many examples, which take turns in each, visible first; int64[S] each.

  Attributes:
    example: the span's example.
    number: its number in the example, from 0; -1 where no sentinel stands for it (a prefix split).
    visible, visible_end: visible tokens of the example before the visible span and after it.
    hidden, hidden_end: hidden tokens of the example before the hidden span that follows and after it.
  """

  example: np.ndarray
  number: np.ndarray
  visible: np.ndarray
  visible_end: np.ndarray
  hidden: np.ndarray
  hidden_end: np.ndarray


def random_spans(keys: np.ndarray, visible: np.ndarray, hidden: np.ndarray, spans: np.ndarray) -> Spans:
  """Returns the spans of N examples, their lengths uniform among all that add up.

  Args:
    keys: uint64[N].
    visible, hidden: int64[N], tokens.
    spans: int64[N], spans hidden, as many stay visible, and none is empty; 0: a prefix split, one visible and one
      hidden span that no sentinel marks.

  Raises:
    UserError: an example of MAX_LENGTH tokens or more.
  """
  count = np.maximum(spans, 1)
  totals = np.concatenate([visible, hidden])
  if len(totals) and int(totals.max()) >= MAX_LENGTH:
    raise UserError(f"denoising: found an example of {int(totals.max()):,} tokens, expected less than {MAX_LENGTH:,}")
  places = np.maximum(totals - 1, 0)  # a cut may be after any token but the last
  cuts = _subsets(np.concatenate([keys, mix(keys)]), places, np.tile(count - 1, 2))
  part, number = _ragged(np.tile(count, 2))
  begin = np.zeros(len(part), np.int64)
  inner = np.flatnonzero(number)
  begin[inner] = cuts - (np.cumsum(places) - places)[part[inner]] + 1
  end = np.append(begin[1:], 0)
  end[np.cumsum(np.tile(count, 2)) - 1] = totals
  half = len(part) // 2
  example, number = part[:half], np.where(spans[part[:half]] > 0, number[:half], -1)
  return Spans(example, number, begin[:half], end[:half], begin[half:], end[half:])


def _subsets(keys: np.ndarray, sizes: np.ndarray, counts: np.ndarray) -> np.ndarray:
  """Returns counts[i] different numbers below sizes[i] for each i, ascending, every subset equally likely.

  Example i's numbers are counted on from sum(sizes[:i]). Numbers are drawn until enough different ones were seen (the
  first k different ones of a sequence are a uniform subset); where more than half are wanted, those left out are drawn.
  """
  ends = np.cumsum(sizes)
  begins, sparse = ends - sizes, 2 * counts <= sizes
  wanted = np.where(sparse, counts, sizes - counts)
  owner = np.full(int(sizes.sum()), -1, np.int32)  # the draw that took a number; none yet
  drawn, missing = np.zeros_like(counts), wanted
  while missing.any():
    example, number = _ragged(missing)
    draw = (drawn[example] + number + 1).astype(np.uint64)
    random = mix(keys[example] + draw * _GOLDEN_RATIO) >> np.uint64(32)
    place = begins[example] + (random * sizes[example].astype(np.uint64) >> np.uint64(32)).astype(np.int64)
    free = np.flatnonzero(owner[place] < 0)
    owner[place[free]] = free
    won = free[owner[place[free]] == free]  # two draws of one round may have met
    drawn, missing = drawn + missing, missing - np.bincount(example[won], minlength=len(counts))
  chosen = owner >= 0
  return np.flatnonzero(chosen if sparse.all() else chosen ^ np.repeat(~sparse, sizes))


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
  noise, count = noise_counts(np.array([length]), density=density, mean_span=mean_span)
  key = rng.integers(0, 2**63, size=1).astype(np.uint64)
  spans = random_spans(key, length - noise, noise, count)
  runs = np.stack([spans.visible_end - spans.visible, spans.hidden_end - spans.hidden], axis=1)
  return np.repeat(np.tile([False, True], len(runs)), runs.ravel())


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
