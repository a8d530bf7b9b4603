"""Streams of tasks: which example stands where is a pure function of (seed, step), and none is lost or read twice."""

import collections
import pickle
import types

import numpy as np
import pytest

from ssljax.data.mixture import Mixture, named
from ssljax.data.pipeline import Stream
from ssljax.data.source import Records
from ssljax.data.tasks import Replay, TaskStream
from ssljax.data.text_stream import TextStream
from ssljax.data.tokenizer import open_tokenizer
from ssljax.data.vocabulary import Vocabulary
from ssljax.errors import UserError

SIZES, ENDS, BATCH = (40, 30, 50), (6, 12, 20), 8


class Numbers:
  """A source whose pictures are the row's number, labels included."""

  def __init__(self, size, first):
    self.size, self.first = size, first

  def __len__(self):
    return self.size

  def read(self, rows):
    return Records({"image": (self.first + rows).astype(np.int32), "label": rows.astype(np.int32)}, {})


def make(*, ends=ENDS, seed=7, host=0, num_hosts=1, **options):
  hosts = {"host": host, "num_hosts": num_hosts}
  streams = tuple(
    Stream(Numbers(size, 1000 * task), seed=seed, batch_size=BATCH, **hosts)
    for task, size in enumerate(SIZES[: len(ends)])
  )
  return TaskStream(streams=streams, ends=ends, seed=seed, batch_size=BATCH, **hosts, **options)


def examples(stream, steps):
  return np.concatenate([stream.batch(step).arrays["image"] for step in steps])


def test_sequential_reads_each_tasks_own_stream_from_its_beginning():
  stream = make()
  for task, begin, end in ((0, 0, 6), (1, 6, 12), (2, 12, 25)):  # after the last one's steps it stays there
    for step in range(begin, end):
      arrays = stream.batch(step).arrays
      own = stream.streams[task].batch(step - begin).arrays["image"]
      np.testing.assert_array_equal(arrays["image"], own)
      assert (arrays["task"] == task).all() and stream.task(step) == task
      assert arrays["index"].tolist() == [[0, step * BATCH + i] for i in range(BATCH)]
      assert "label" not in arrays


def test_later_tasks_change_nothing_before_them():
  two, three = make(ends=ENDS[:2]), make()
  np.testing.assert_array_equal(examples(two, range(12)), examples(three, range(12)))


def test_joint_reads_what_sequential_reads():
  joint = make(order="joint")
  read, expected = examples(joint, range(20)), examples(make(), range(20))
  assert collections.Counter(read.tolist()) == collections.Counter(expected.tolist())
  shares = np.stack([np.bincount(joint.batch(step).arrays["task"], minlength=3) for step in range(20)])
  assert (shares.sum(0) == np.diff(ENDS, prepend=0) * BATCH).all() and (shares[:19].min(1) > 0).mean() > 0.9


@pytest.mark.parametrize("buffer", ["reservoir", "per_task"])
def test_replay_takes_its_share_from_the_buffer_and_loses_no_new_example(buffer):
  stream = make(replay=Replay(share=0.25, capacity=10, buffer=buffer))
  for step in range(20):
    tasks = stream.batch(step).arrays["task"]
    now = stream.task(step)
    assert (tasks == now).sum() == (8 if now == 0 else 6) and (tasks <= now).all()
  fresh = [stream.where(step) for step in range(12, 20)]
  fresh = np.concatenate([positions[tasks == 2] for tasks, positions in fresh])
  assert fresh.tolist() == list(range(48))
  old = {pair for step in range(12, 20) for pair in zip(*map(np.ndarray.tolist, stream.where(step)), strict=True)}
  old = {(task, position) for task, position in old if task < 2}
  kept = set(map(tuple, stream._buffers[2].tolist()))
  assert old <= kept and len(kept) == (10 if buffer == "reservoir" else 20)
  # what the second buffer holds of the first task was in the first one
  assert {pair for pair in kept if pair[0] == 0} <= set(map(tuple, stream._buffers[1].tolist()))


def test_a_reservoir_is_a_uniform_sample_of_what_was_seen():
  """40 + 30 examples seen, 10 kept, 600 seeds: every example is kept 85.7 times, within five deviations."""
  counts = collections.Counter()
  for seed in range(600):
    buffer = make(seed=seed, ends=(5, 10, 20), replay=Replay(share=0.25, capacity=10))._buffers[2]
    counts.update(map(tuple, buffer.tolist()))
  assert len(counts) == 40 + 30
  expected = 600 * 10 / 70
  assert max(abs(n - expected) for n in counts.values()) < 5 * np.sqrt(expected)


@pytest.mark.parametrize("options", [{}, {"order": "joint"}, {"replay": Replay(share=0.5, capacity=9)}])
def test_hosts_read_their_part_of_the_same_batch_and_pickles_go_on(options):
  whole = make(**options)
  parts = [pickle.loads(pickle.dumps(make(host=host, num_hosts=2, **options))) for host in range(2)]
  for step in (0, 7, 15):
    together = [part.batch(step).arrays for part in parts]
    for key, value in whole.batch(step).arrays.items():
      np.testing.assert_array_equal(value, np.concatenate([arrays[key] for arrays in together]))


def test_a_stream_may_begin_later():
  late = make(begin=100, ends=(106, 112, 120))
  for step in (0, 5, 6, 19):
    np.testing.assert_array_equal(late.batch(100 + step).arrays["image"], make().batch(step).arrays["image"])
  joint = make(begin=100, ends=(106, 112, 120), order="joint")
  np.testing.assert_array_equal(joint.batch(107).arrays["image"], make(order="joint").batch(7).arrays["image"])


def test_text_rows_of_several_tasks():
  def text(seed):
    generator = np.random.default_rng(seed)
    lengths = generator.integers(5, 60, 40)
    mixture = Mixture(named("ul2"), "decoder_only", 64, 0)
    store = types.SimpleNamespace(
      tokens=generator.integers(3, 259, lengths.sum()).astype(np.uint16), offsets=np.append(0, np.cumsum(lengths))
    )
    vocabulary = Vocabulary(open_tokenizer("bytes"), mixture.mode_names, mixture.sentinels)
    return TextStream(tokens=store, mixture=mixture, vocabulary=vocabulary, seed=0, batch_size=BATCH)

  streams = (text(1), text(2))
  stream = TaskStream(streams=streams, ends=(3, 6), seed=0, batch_size=BATCH, replay=Replay(share=0.5, capacity=6))
  arrays = stream.batch(4).arrays
  tasks, positions = stream.where(4)
  assert sorted(tasks.tolist()) == [0] * 4 + [1] * 4
  for row, (task, position) in enumerate(zip(tasks, positions, strict=True)):
    alone = streams[task].rows(np.array([position]))
    assert all((arrays[key][row] == value[0]).all() for key, value in alone.items())


def test_what_cannot_be():
  with pytest.raises(UserError, match=r"continual\.replay\.share: found 1\.0, expected at least 0 and below 1"):
    Replay(share=1.0)
  with pytest.raises(UserError, match=r"continual\.replay\.capacity: found 0"):
    Replay(capacity=0)
  with pytest.raises(UserError, match=r"continual\.replay: found a section, expected none"):
    make(order="joint", replay=Replay())
