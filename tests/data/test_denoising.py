"""Span corruption against T5's functions: published lengths and examples, invertibility, the distribution."""

import collections
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssljax.data import denoising
from ssljax.errors import UserError

PAIRS = ((3, 0.15), (8, 0.15), (3, 0.5), (8, 0.5), (64, 0.15), (64, 0.5))  # (mean span, density)
LENGTHS = {  # T5's random_spans_helper
  64: ((70, 14), (73, 13), (94, 64), (112, 64), (74, 12), (124, 64)),
  128: ((141, 29), (146, 26), (190, 128), (226, 128), (149, 23), (250, 128)),
  512: ((568, 114), (588, 100), (766, 512), (908, 512), (600, 92), (1006, 512)),
  1024: ((1137, 229), (1178, 200), (1534, 1024), (1818, 1024), (1200, 184), (2014, 1024)),
  2048: ((2274, 456), (2357, 399), (3070, 2048), (3638, 2048), (2401, 367), (4030, 2048)),
}


@pytest.mark.parametrize("length", LENGTHS)
def test_span_lengths(length):
  found = tuple(denoising.span_lengths(length, density=r, mean_span=mu) for mu, r in PAIRS)
  assert found == LENGTHS[length]


def test_span_lengths_of_the_official_test():
  assert denoising.span_lengths(64, density=0.2, mean_span=2) == (70, 22)
  assert denoising.span_lengths(64, density=0.2, mean_span=1) == (63, 27)
  with pytest.raises(UserError, match="inputs_length: found 2, too short"):
    denoising.span_lengths(2, density=0.5, mean_span=1)


@pytest.mark.parametrize(
  ("length", "pair", "expected"),
  [
    *zip(itertools.repeat(512), PAIRS, ((77, 26), (77, 10), (256, 85), (256, 32), (77, 1), (256, 4)), strict=False),
    (568, (3, 0.15), (85, 28)),
    (20, (3, 0.15), (3, 1)),
    (2, (64, 0.5), (1, 1)),
  ],
)
def test_noise_counts(length, pair, expected):
  noise, spans = denoising.noise_counts(np.array([length]), density=pair[1], mean_span=pair[0])
  assert (noise[0], spans[0]) == expected


def test_corrupt_golden():
  tokens, mask = np.arange(10, 16), np.array([1, 1, 0, 0, 1, 0], bool)  # the official test's
  inputs, _ = denoising.corrupt(tokens, mask, last_sentinel=999)
  assert inputs.tolist() == [999, 12, 13, 998, 15]
  mask = np.repeat([0, 1, 0, 1, 0, 1], [3, 2, 2, 1, 4, 3]).astype(bool)
  inputs, targets = denoising.corrupt(np.arange(101, 116), mask, last_sentinel=32099)
  assert inputs.tolist() == [101, 102, 103, 32099, 106, 107, 32098, 109, 110, 111, 112, 32097]
  assert targets.tolist() == [32099, 104, 105, 32098, 108, 32097, 113, 114, 115]


@given(
  length=st.integers(0, 300),
  density=st.floats(0.01, 0.99),
  mean_span=st.floats(1, 80),
  seed=st.integers(0, 2**32 - 1),
)
def test_corruption_is_invertible(length, density, mean_span, seed):
  mask = denoising.noise_mask(np.random.default_rng(seed), length, density=density, mean_span=mean_span)
  assert mask.shape == (length,)
  tokens = np.arange(1, length + 1)
  inputs, targets = denoising.corrupt(tokens, mask, last_sentinel=10_000)
  assert denoising.restore(inputs, targets, last_sentinel=10_000, spans=1000).tolist() == tokens.tolist()
  if length > 1:
    noise, spans = denoising.noise_counts(np.array([length]), density=density, mean_span=mean_span)
    starts = mask & ~np.append(False, mask[:-1])
    assert mask.sum() == noise[0] and starts.sum() == spans[0] and not mask[0] and mask[-1]


def test_many_at_once_equal_one_at_a_time():
  generator = np.random.default_rng(0)
  lengths = generator.integers(2, 60, 50)
  keys = generator.integers(0, 2**63, 50).astype(np.uint64)
  noise, spans = denoising.noise_counts(lengths, density=0.3, mean_span=2.5)
  together = denoising.random_spans(keys, lengths, noise, spans)
  tokens = np.arange(lengths.sum())
  inputs, targets = denoising.split_spans(tokens, together, last_sentinel=-1)
  alone_inputs, alone_targets, offset = [], [], 0
  for i, length in enumerate(lengths):
    one = denoising.random_spans(keys[i : i + 1], lengths[i : i + 1], noise[i : i + 1], spans[i : i + 1])
    mask = np.zeros(length, bool)
    for begin, end in zip(one.hidden, one.end, strict=True):
      mask[begin:end] = True
    pair = denoising.corrupt(tokens[offset : offset + length], mask, last_sentinel=-1)
    alone_inputs, alone_targets, offset = [*alone_inputs, pair[0]], [*alone_targets, pair[1]], offset + length
  assert inputs.tolist() == np.concatenate(alone_inputs).tolist()
  assert targets.tolist() == np.concatenate(alone_targets).tolist()


def test_every_composition_is_equally_likely():
  """5 hidden tokens in 3 spans of 12 tokens: 6 x 15 masks, each expected 400 times; chi-squared of 89 degrees."""
  count = 36_000
  lengths = np.full(count, 12)
  spans = denoising.random_spans(np.arange(count, dtype=np.uint64), lengths, np.full(count, 5), np.full(count, 3))
  shapes = collections.Counter(map(tuple, np.stack([spans.hidden, spans.end], 1).reshape(count, -1) % 12))
  assert len(shapes) == 6 * 15
  expected = count / len(shapes)
  assert sum((n - expected) ** 2 / expected for n in shapes.values()) < 135  # 0.999 quantile: 135.0


@pytest.mark.parametrize(("density", "least"), [(0.5, 1), (0.25, 15), (0.1, 24)])
def test_prefixes_are_uniform_above_their_least(density, least):
  prefix = denoising.prefix_lengths(np.arange(30_000, dtype=np.uint64), np.full(30_000, 31), density=density)
  counts = np.bincount(prefix, minlength=31)
  assert not counts[:least].any() and len(counts) == 31
  expected = 30_000 / (31 - least)
  assert np.abs(counts[least:] - expected).max() < 5 * np.sqrt(expected)


def test_prefix_of_everything_or_of_nothing():
  keys = np.arange(3, dtype=np.uint64)
  assert denoising.prefix_lengths(keys, np.array([1, 2, 9]), density=1).tolist() == [0, 0, 0]
  assert denoising.prefix_lengths(keys, np.array([1, 2, 2]), density=0.25).tolist() == [0, 1, 1]
  with pytest.raises(UserError, match=r"density: found 0\.6"):
    denoising.prefix_lengths(keys, np.array([9, 9, 9]), density=0.6)


def test_too_long_an_example():
  with pytest.raises(UserError, match="less than 65,536 tokens"):
    denoising.random_spans(*(np.array([n]) for n in (1, 200_000, 70_000, 3)))
