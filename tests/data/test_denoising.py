"""Span corruption against T5's functions: published lengths and examples, invertibility, the distribution."""

import itertools
import math

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
  noise[:3], spans[:3] = (0, 1, 2), 0  # prefix splits, one of them without targets
  together = denoising.random_spans(keys, lengths - noise, noise, spans)
  for i in range(len(lengths)):
    alone = denoising.random_spans(keys[i : i + 1], (lengths - noise)[i : i + 1], noise[i : i + 1], spans[i : i + 1])
    mine = together.example == i
    for field in denoising.Spans._fields[1:]:
      assert getattr(together, field)[mine].tolist() == getattr(alone, field).tolist()
    assert (alone.visible[0], alone.visible_end[-1]) == (0, lengths[i] - noise[i])
    assert (alone.hidden[0], alone.hidden_end[-1]) == (0, noise[i])
    assert alone.number.tolist() == (list(range(spans[i])) or [-1])


@pytest.mark.parametrize(("visible", "hidden", "spans"), [(7, 5, 3), (4, 4, 4), (8, 9, 8)])
def test_every_composition_is_equally_likely(visible, hidden, spans):
  """400 times as many examples as compositions; chi-squared within 5 deviations of its mean."""
  ways = math.comb(visible - 1, spans - 1) * math.comb(hidden - 1, spans - 1)
  count = 400 * ways
  each = (np.full(count, n) for n in (visible, hidden, spans))
  found = denoising.random_spans(np.arange(count, dtype=np.uint64), *each)
  shapes = np.stack([found.visible_end, found.hidden_end], axis=1).reshape(count, -1)
  seen = np.unique(shapes, axis=0, return_counts=True)[1]
  assert len(seen) == ways
  assert abs(np.sum((seen - 400) ** 2 / 400) - (ways - 1)) <= 5 * np.sqrt(2 * (ways - 1))


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
  with pytest.raises(UserError, match="found an example of 130,000 tokens, expected less than 65,536"):
    denoising.random_spans(*(np.array([n]) for n in (1, 130_000, 70_000, 3)))
