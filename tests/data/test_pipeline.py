import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssljax.data.decode import CorruptRecord
from ssljax.data.pipeline import Stream, epoch
from ssljax.data.source import Source, open_source
from ssljax.errors import UserError


class Numbers(Source):
  """Pictures whose label is their row; the rows in `bad` are corrupt."""

  num_classes = 2**31 - 1

  def __init__(self, size, bad=()):
    self.size, self.bad, self.image_size = size, frozenset(bad), 1

  def __len__(self):
    return self.size

  def fetch(self, rows):
    items = [
      CorruptRecord("torn") if row in self.bad else np.full((1, 1, 3), row % 256, np.uint8) for row in rows.tolist()
    ]
    return items, rows

  def name(self, row):
    return f"record {row}"


def labels(stream, steps):
  """The rows a stream gives in some steps, [steps, b]."""
  return np.stack([stream.batch(step).arrays["label"] for step in steps])


@given(size=st.integers(1, 300), hosts=st.sampled_from([1, 2, 4]), local=st.integers(1, 9), seed=st.integers(0, 2**63))
@settings(max_examples=40, deadline=None)
def test_hosts_part_the_epochs_and_no_record_is_lost(size, hosts, local, seed):
  batch = hosts * local
  steps = range(-(-2 * size // batch))
  parts = [
    labels(Stream(Numbers(size), seed=seed, batch_size=batch, host=host, num_hosts=hosts), steps)
    for host in range(hosts)
  ]
  stream = np.concatenate(parts, axis=1).reshape(-1)
  for number in range(2):
    np.testing.assert_array_equal(np.sort(stream[number * size : (number + 1) * size]), np.arange(size))
  np.testing.assert_array_equal(labels(Stream(Numbers(size), seed=seed, batch_size=batch), steps).reshape(-1), stream)


def test_a_batch_is_a_function_of_seed_and_step_alone():
  stream = Stream(Numbers(50), seed=3, batch_size=8)
  forward = labels(stream, range(20))
  backward = labels(Stream(Numbers(50), seed=3, batch_size=8), reversed(range(20)))[::-1]
  np.testing.assert_array_equal(forward, backward)
  assert not np.array_equal(forward, labels(Stream(Numbers(50), seed=4, batch_size=8), range(20)))


def test_each_epoch_has_its_own_order():
  orders = labels(Stream(Numbers(60), seed=0, batch_size=60), range(3))
  assert len({tuple(order) for order in orders}) == 3 and orders[0].tolist() != list(range(60))


def test_without_shuffling_the_order_is_the_source_s():
  stream = Stream(Numbers(5), seed=0, batch_size=4, shuffle="none")
  assert labels(stream, range(3)).tolist() == [[0, 1, 2, 3], [4, 0, 1, 2], [3, 4, 0, 1]]


def test_index_is_the_position_as_two_words():
  stream = Stream(Numbers(7), seed=0, batch_size=4, host=1, num_hosts=2)
  assert stream.batch(3).arrays["index"].tolist() == [[0, 14], [0, 15]]
  step = 2**33 // 4 + 1
  index = stream.batch(step).arrays["index"]
  assert index.tolist() == [[2, 6], [2, 7]] and index.dtype == np.uint32


def test_a_corrupt_record_gives_its_place_to_the_next_good_one():
  good = Stream(Numbers(40), seed=1, batch_size=40).batch(0)
  torn = Stream(Numbers(40, bad={5, 6, 39}), seed=1, batch_size=40).batch(0)
  expected = np.where(np.isin(good.arrays["label"], [5, 6]), 7, good.arrays["label"])
  expected[expected == 39] = 0
  np.testing.assert_array_equal(torn.arrays["label"], expected)
  np.testing.assert_array_equal(torn.arrays["image"][:, 0, 0, 0], expected)
  np.testing.assert_array_equal(torn.arrays["index"], good.arrays["index"])
  assert set(torn.skipped) == {"record 5: torn", "record 6: torn", "record 39: torn"} and good.skipped == ()


def test_a_set_with_nothing_good_stops():
  with pytest.raises(UserError, match=r"100 records in a row cannot be used, the first is record \d+: torn"):
    Stream(Numbers(40, bad=range(40)), seed=1, batch_size=4).batch(0)


def test_a_corrupt_file_is_skipped_and_named(folder):
  broken = folder / "cat/deeper/06.jpg"
  broken.write_bytes(broken.read_bytes()[:100])
  batch = Stream(open_source(f"folder:{folder}", split="all", image_size=4), seed=0, batch_size=24).batch(0)
  assert len(batch.skipped) == 1 and batch.skipped[0].startswith(f"{broken}: ")
  brightness = np.sort(batch.arrays["image"].mean((1, 2, 3)).round(-1))
  np.testing.assert_array_equal(brightness, sorted([*(10 * i for i in range(24) if i != 6), 80]))


def test_iterating_begins_at_any_step_and_closes():
  stream = Stream(Numbers(30, bad={3}), seed=2, batch_size=6)
  batches = stream.iterate(7, threads=3, prefetch=2)
  for step in range(7, 15):
    got, expected = next(batches), stream.batch(step)
    assert got.skipped == expected.skipped
    for key, value in expected.arrays.items():
      np.testing.assert_array_equal(got.arrays[key], value)
  batches.close()
  with pytest.raises(StopIteration):
    next(batches)


def test_a_user_error_in_a_reader_thread_arrives_as_it_is():
  batches = Stream(Numbers(9, bad=range(9)), seed=0, batch_size=4).iterate(0)
  with pytest.raises(UserError, match="100 records in a row"):
    next(batches)


WORKERS = """
import os, signal, sys
from ssljax.data.pipeline import Stream
from ssljax.data.source import open_source

if __name__ == "__main__":
  signal.signal(signal.SIGTERM, lambda *_: None)
  stream = Stream(open_source(sys.argv[1], split="train[:90%]", image_size=8), seed=5, batch_size=6)
  for workers in (0, 1, 2):
    batches = stream.iterate(3, workers=workers, prefetch=2)
    for step in range(3, 11):
      got, expected = next(batches), stream.batch(step)
      if step == 4:
        os.killpg(0, signal.SIGTERM)  # as SLURM does; the steps up to the last checkpoint still need their batches
      assert got.skipped == expected.skipped
      assert all((got.arrays[key] == value).all() for key, value in expected.arrays.items()), (workers, step)
    if workers < 2:
      batches.close()  # the last one is left open: leaving must be clean all the same
  print("same", len(got.arrays))
"""


def test_workers_change_nothing_and_leave_cleanly(folder, tmp_path):
  (folder / "cat/deeper/06.jpg").write_text("torn")
  script = tmp_path / "workers.py"
  script.write_text(WORKERS)
  environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
  command = [sys.executable, "-W", "error", str(script), f"folder:{folder}"]
  done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, start_new_session=True)
  assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "same 4", "")


@pytest.mark.parametrize("hosts", [1, 2])
def test_an_epoch_gives_each_record_once_in_order(hosts):
  parts = [list(epoch(Numbers(10), 4, host=host, num_hosts=hosts)) for host in range(hosts)]
  assert [len(part) for part in parts] == [3] * hosts
  rows, valid = (
    np.concatenate([np.concatenate([batch.arrays[key] for batch in step]) for step in zip(*parts, strict=True)])
    for key in ("label", "valid")
  )
  assert rows[valid].tolist() == list(range(10)) and valid.tolist() == [True] * 10 + [False] * 2
  assert {len(batch.arrays["image"]) for part in parts for batch in part} == {4 // hosts}


def test_an_epoch_marks_corrupt_records():
  batches = list(epoch(Numbers(6, bad={2, 5}), 4))
  assert np.concatenate([batch.arrays["valid"] for batch in batches]).tolist() == [1, 1, 0, 1, 1, 0, 0, 0]
  assert [batch.skipped for batch in batches] == [("record 2: torn",), ("record 5: torn",)]


@pytest.mark.parametrize(
  ("options", "says"),
  [
    ({"batch_size": 0}, "batch_size: found 0"),
    ({"batch_size": 6, "num_hosts": 4}, "expected a positive multiple of the 4 hosts"),
    ({"batch_size": 4, "host": 2, "num_hosts": 2}, "host 2 of 2"),
    ({"batch_size": 4, "shuffle": "files"}, "found 'files', expected epoch or none"),
  ],
)
def test_wrong_options_are_named(options, says):
  with pytest.raises(UserError, match=says):
    Stream(Numbers(10), seed=0, **options)
