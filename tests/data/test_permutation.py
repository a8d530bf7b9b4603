import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssljax.data.permutation import TABLE_SIZE, mix, permute, words


@given(size=st.integers(1, 5000), seed=st.integers(0, 2**64), epoch=st.integers(0, 2**40))
def test_a_permutation_reaches_each_place_once(size, seed, epoch):
  out = permute(np.arange(size), size=size, key=(seed, epoch))
  np.testing.assert_array_equal(np.sort(out), np.arange(size))


@given(size=st.sampled_from([7, TABLE_SIZE, TABLE_SIZE + 1, 10**8, 2**40]), data=st.data())
def test_an_index_lands_alone_where_it_lands_in_company(size, data):
  index = np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=20)))
  together = permute(index, size=size, key=(1, 2))
  alone = [int(permute(index[i : i + 1], size=size, key=(1, 2))[0]) for i in range(len(index))]
  assert together.tolist() == alone
  assert ((together >= 0) & (together < size)).all()


@pytest.mark.parametrize("size", [3, 1500, 2**20 + 1])
def test_every_place_is_as_likely_and_neighbours_part(size):
  keys, cells = 4000, 3
  landed = np.stack([permute(np.array([0, 1]), size=size, key=(5, key)) for key in range(keys)]) * cells // size
  counts = np.bincount(landed[:, 0] * cells + landed[:, 1], minlength=cells**2).reshape(cells, cells)
  for margin in (counts.sum(0), counts.sum(1)):
    assert ((margin - keys / cells) ** 2 / (keys / cells)).sum() < 18  # chi-square, 2 degrees, p = 1e-4
  if size > 3:
    assert ((counts - keys / cells**2) ** 2 / (keys / cells**2)).sum() < 38  # 8 degrees, p = 1e-5


def test_the_key_chooses_the_order():
  orders = {tuple(permute(np.arange(50), size=50, key=key)) for key in ((0, 0), (0, 1), (1, 0), (2**64 - 1, 0))}
  assert len(orders) == 4


def test_published_words_of_splitmix64():
  # The first outputs of the reference SplitMix64 generator from state 0.
  state = np.arange(1, 4, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
  assert [hex(word) for word in mix(state).tolist()] == [
    "0xe220a8397b1dcdaf",
    "0x6e789e6aa1b965f4",
    "0x6c45d188009454f",
  ]


def test_words_depend_on_each_part_of_the_key():
  assert len({tuple(words(*key, count=2).tolist()) for key in ((), (0,), (1,), (0, 0), (0, 1), (1, 0))}) == 6


def test_the_order_never_changes():
  """A resumed run relies on this order: change it and each stored run goes on with other data."""
  assert permute(np.arange(6), size=6, key=(0, 0)).tolist() == [0, 2, 5, 4, 3, 1]
  assert permute(np.arange(4), size=10**6, key=(0, 0)).tolist() == [135085, 632804, 901250, 20360]
