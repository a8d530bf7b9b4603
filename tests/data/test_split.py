import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssljax.data.split import Sliced, in_test, select, take
from ssljax.errors import UserError


def rows_of(text, *, own=None, size=100, group=str):
  """The rows of a split as a list."""
  rows = select(text, own=own or {}, size=size, group=group)
  return take(rows, np.arange(len(rows))).tolist()


def test_train_and_test_part_all_records_and_test_is_a_tenth():
  train, test = (rows_of(name, size=5000) for name in ("train", "test"))
  assert sorted(train + test) == rows_of("all", size=5000) == list(range(5000))
  assert 400 < len(test) < 600


def test_a_record_keeps_its_side_when_others_are_added():
  assert [row for row in rows_of("test", size=1000) if row < 300] == rows_of("test", size=300)


def test_the_side_of_a_name_never_changes():
  assert [i for i in range(60) if in_test(f"cat/{i}.jpg")] == [28, 33, 35, 45, 48, 49, 56, 58]


def test_a_group_never_parts():
  test = set(rows_of("test", group=lambda row: f"concept {row // 4}"))
  assert test and all({row // 4 * 4 + i for i in range(4)} <= test for row in test)


def test_a_source_splits_as_it_says():
  own = {"train": range(0, 6), "test": np.array([7, 9])}
  assert rows_of("train", own=own, size=10) == list(range(6))
  assert rows_of("test", own=own, size=10) == [7, 9]
  assert rows_of("all", own=own, size=10) == list(range(10))


def test_validation_stands_in_for_test():
  own = {"train": range(4), "validation": range(4, 6)}
  assert rows_of("test", own=own) == rows_of("validation", own=own) == [4, 5]


def test_a_single_own_split_is_split_by_hash():
  assert rows_of("test", own={"train": range(100)}) == rows_of("test")


@given(size=st.integers(2, 3000), cut=st.integers(1, 99))
def test_two_slices_part_the_split(size, cut):
  own = {"train": range(size), "test": range(0)}
  bounds = f"train[:{cut}%]", f"train[{cut}%:]"
  if size * cut // 100 == 0:
    with pytest.raises(UserError):
      rows_of(bounds[0], own=own)
    return
  first, second = (rows_of(text, own=own) for text in bounds)
  assert sorted(first + second) == list(range(size))
  assert len(first) == size * cut // 100


def test_a_slice_of_sorted_classes_holds_each_class():
  classes = np.repeat(np.arange(10), 100)
  counts = np.bincount(classes[rows_of("all[:30%]", size=1000)], minlength=10)
  assert counts.min() > 15 and counts.sum() == 300


def test_slices_by_count():
  assert len(rows_of("all[10:25]")) == 15
  assert sorted(rows_of("all[:40]") + rows_of("all[40:]")) == list(range(100))
  assert len(rows_of("all[:12.5%]", size=80)) == 10


def test_a_slice_holds_no_table():
  rows = select("train[:50%]", own={"train": range(10**12), "test": range(10)}, size=10**12, group=str)
  assert isinstance(rows, Sliced) and len(rows) == 5 * 10**11
  assert 0 <= take(rows, np.array([3 * 10**11]))[0] < 10**12


@pytest.mark.parametrize(
  ("text", "says"),
  [
    ("trian", "did you mean train"),
    ("validation", "unknown split validation"),
    ("train[", "expected NAME or NAME"),
    ("train[5]", "expected NAME or NAME"),
    ("train[a:]", "bound 'a'"),
    ("train[-5:]", "bound '-5'"),
    ("all[60:40]", "which is none"),
    ("all[:0%]", "which is none"),
    ("all[:101]", "asks for record 101, but the split holds 100"),
    ("all[:150%]", "asks for record 150"),
    ("", "expected NAME"),
  ],
)
def test_mistakes_are_named(text, says):
  with pytest.raises(UserError) as error:
    rows_of(text)
  assert says in str(error.value) and "\n" not in str(error.value)
