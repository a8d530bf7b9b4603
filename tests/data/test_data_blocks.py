"""Sentences cut and grouped: nothing lost, nothing over the length, blocks within documents."""

import itertools
import types

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ssljax.data.blocks import Blocks, cut, group


@given(
  documents=st.lists(st.lists(st.integers(1, 40), max_size=6), min_size=1, max_size=6),
  query=st.integers(1, 12),
  more=st.integers(2, 5),
)
def test_cut_and_grouped(documents, query, more):
  lengths = [n for document in documents for n in document]
  offsets = np.append(0, np.cumsum(lengths, dtype=np.int64)).astype(np.int64)
  owners = np.append(0, np.cumsum([len(document) for document in documents])).astype(np.int64)
  parts, belong = cut(offsets, owners, most=query)
  assert set(offsets) <= set(parts) and (np.diff(parts) > 0).all() and parts[-1] == offsets[-1]
  assert (np.diff(parts) <= query).all() and len(parts) - 1 == sum(-(-n // query) for n in lengths)
  assert parts[belong].tolist() == offsets[owners].tolist()  # documents have the same tokens
  bounds = group(parts, belong, most=query * more)
  for first, last in bounds:
    assert last - first >= 2 and parts[last] - parts[first] <= query * more
    assert any(a <= first and last <= b for a, b in itertools.pairwise(belong))
  ends = bounds[:, 1].tolist()
  for first, last in zip(bounds[:, 0], bounds[:, 1], strict=True):  # no room for one more
    assert last in belong or parts[last + 1] - parts[first] > query * more
  assert sorted(ends) == ends and (bounds[1:, 0] >= bounds[:-1, 1]).all()


def test_parts_of_a_long_sentence_are_alike():
  parts, belong = cut(np.array([0, 3, 14]), np.array([0, 1, 2]), most=5)
  assert np.diff(parts).tolist() == [3, 3, 4, 4] and belong.tolist() == [0, 1, 4]


def make(bounds):
  store = types.SimpleNamespace(tokens=np.arange(10, 30, dtype=np.uint16))
  return Blocks(store, np.array([0, 2, 5, 6, 10]), np.array(bounds), np.array([0, 3, 4]))


def test_rows_leave_out_what_is_hidden():
  blocks = make([(0, 3), (1, 4)])
  begin, end = np.array([0, 1]), np.array([3, 4])
  lay = lambda hidden, first: blocks.layout(begin, end, hidden=hidden, width=10, first=first, eos=1).tolist()
  assert lay((np.array([1, 1]), np.array([2, 1])), None) == [
    [10, 11, 15, 1, 0, 0, 0, 0, 0, 0],
    [12, 13, 14, 15, 16, 17, 18, 19, 1, 0],
  ]
  assert lay((np.array([0, 3]), np.array([1, 4])), 2) == [
    [2, 12, 13, 14, 15, 1, 0, 0, 0, 0],
    [2, 12, 13, 14, 15, 1, 0, 0, 0, 0],
  ]


def test_sentences_in_no_block_are_counted():
  assert make([(0, 2)]).left_out == 2
  assert len(group(np.array([0, 3, 5]), np.array([0, 1, 2]), most=9)) == 0  # one sentence a document


def test_blocks_know_their_documents():
  assert make([(0, 2), (1, 3), (3, 4)]).owners().tolist() == [0, 0, 1]
