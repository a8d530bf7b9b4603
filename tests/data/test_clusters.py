"""Batches of different clusters: one of each where all are alike, spread evenly where not; files that do not fit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssljax.data.clusters import Clusters, load, save
from ssljax.data.pipeline import Stream
from ssljax.data.source import open_source
from ssljax.errors import UserError


@given(count=st.integers(2, 9), each=st.integers(1, 9), seed=st.integers(0, 2**63), start=st.integers(0, 200))
@settings(max_examples=40, deadline=None)
def test_as_many_in_a_row_as_there_are_clusters_are_of_all_of_them(count, each, seed, start):
  """From anywhere in the stream, also across epochs."""
  labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(count), each))
  rows = Clusters(labels).rows(start + np.arange(count), seed=seed)
  assert sorted(labels[rows]) == list(range(count))


@given(size=st.integers(1, 80), kinds=st.integers(1, 9), seed=st.integers(0, 2**63))
@settings(max_examples=40, deadline=None)
def test_an_epoch_holds_every_record_once_and_every_cluster_evenly(size, kinds, seed):
  labels = np.random.default_rng(seed).integers(0, kinds, size) ** 2  # of any sizes, numbers left out
  clusters = Clusters(labels)
  for epoch in range(2):
    rows = clusters.rows(epoch * size + np.arange(size), seed=seed)
    np.testing.assert_array_equal(np.sort(rows), np.arange(size))
    for kind, own in zip(*np.unique(labels, return_counts=True), strict=True):
      seen = np.cumsum(labels[rows] == kind)
      # Of the first p records p/size of the cluster are there; rounding, its own and the others', is all that differs.
      assert np.abs(seen - own * np.arange(1, size + 1) / size).max() <= 1 + own * len(np.unique(labels)) / size


def test_epochs_and_seeds_differ_and_what_was_asked_before_does_not_matter():
  labels = np.arange(60) % 5
  clusters, everything = Clusters(labels), np.arange(240)
  rows = clusters.rows(everything, seed=3)
  assert (rows[:60] != rows[60:120]).any() and (rows != Clusters(labels).rows(everything, seed=4)).any()
  other = Clusters(labels)
  backward = [other.rows(everything[part : part + 7], seed=3) for part in range(0, 240, 7)[::-1]]
  np.testing.assert_array_equal(np.concatenate(backward[::-1]), rows)


def pictures(folder, size=24):
  file = folder / "pictures.npz"
  np.savez(file, image=np.zeros((size, 4, 4, 3), np.uint8), label=np.arange(size) % 4)
  return f"npz:{file}"


def test_a_stream_reads_in_their_order_on_every_host(tmp_path):
  spec = pictures(tmp_path)
  source = open_source(spec, split="all", image_size=4)
  save(tmp_path / "c.npz", np.arange(24) % 4, source=spec, split="all")
  clusters = load(str(tmp_path / "c.npz"), source=spec, split="all", size=24)
  whole = Stream(source, seed=1, batch_size=4, clusters=clusters)
  for step in range(12):
    label = whole.batch(step).arrays["label"]
    assert sorted(label) == [0, 1, 2, 3]
    parts = [Stream(source, seed=1, batch_size=4, clusters=clusters, host=host, num_hosts=2) for host in range(2)]
    np.testing.assert_array_equal(np.concatenate([part.batch(step).arrays["label"] for part in parts]), label)


def test_files_that_do_not_fit_are_named(tmp_path):
  file = tmp_path / "c.npz"
  read = lambda **options: load(str(file), **dict(source="npz:a", split="train", size=3) | options)
  with pytest.raises(UserError, match=r"data\.clusters: no file .*ssljax data clusters writes one"):
    read()
  file.write_bytes(b"not this")
  with pytest.raises(UserError, match="holds no clusters"):
    read()
  np.savez(file, image=np.zeros(3))
  with pytest.raises(UserError, match="holds no clusters"):
    read()
  save(file, np.arange(3), source="npz:a", split="train")
  assert read().sizes.tolist() == [1, 1, 1]
  for other in (dict(source="npz:b"), dict(split="test"), dict(size=4)):
    with pytest.raises(UserError, match="is of 3 records of npz:a, split train, expected"):
      read(**other)
