"""The stand-in's batches against those of real data: same names, shapes and types, however many rows."""

import json

import numpy as np
import pytest
from pairs_file import inline, write_pairs

from ssljax.data.captions import Captioner, Captions
from ssljax.data.corpus import Text, open_corpus
from ssljax.data.pipeline import Stream
from ssljax.data.source import open_source
from ssljax.planning.stand_in import stand_in


def leaves(batch):
  return {key: (value.shape, value.dtype) for key, value in batch.arrays.items()}


def test_pictures(tmp_path):
  np.savez(tmp_path / "a.npz", image=np.zeros((9, 20, 24, 3), np.uint8), label=np.arange(9) % 3)
  source = open_source(f"npz:{tmp_path}/a.npz", split="all", image_size=16)
  real = Stream(source, seed=0, batch_size=6).batch(0)
  assert leaves(stand_in(batch_size=6, image_size=16, text=None, num_tasks=0).batch(3)) == leaves(real)


@pytest.mark.parametrize("pick", ["first", "two"])
def test_pairs(tmp_path, pick):
  spec = write_pairs(tmp_path, [inline(n) for n in range(9)])
  captions = Captions(tokenizer="bytes", length=11, pick=pick)
  source = open_source(spec, split="all", image_size=16)
  real = Stream(source, seed=0, batch_size=6, captioner=Captioner(captions)).batch(0)
  batch = stand_in(batch_size=6, image_size=16, text=None, num_tasks=0, captions=captions).batch(3)
  batch.arrays.pop("label")  # these pairs have none
  assert leaves(batch) == leaves(real)


@pytest.mark.parametrize("layout", ["encoder_decoder", "decoder_only"])
def test_texts(tmp_path, monkeypatch, layout):
  monkeypatch.setenv("SSLJAX_CACHE", str(tmp_path / "cache"))
  (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": f"number {n} " * n}) for n in range(1, 40)))
  text = Text(tokenizer="bytes", inputs_length=40, targets_length=32, row_inputs=64, row_targets=48, layout=layout)
  spec = f"text:{tmp_path}/a.jsonl"
  real = open_corpus(spec, text, split="all", trained_on=(spec, "all")).stream(seed=0, batch_size=6).batch(0)
  assert leaves(stand_in(batch_size=6, image_size=1, text=text, num_tasks=0).batch(0)) == leaves(real)


def test_streams_say_which_task_and_hold_no_labels():
  batch = stand_in(batch_size=4, image_size=8, text=None, num_tasks=2).batch(0)
  assert leaves(batch)["task"] == ((4,), np.int32) and "label" not in batch.arrays


def test_a_large_batch_takes_no_memory():
  batch = stand_in(batch_size=2**20, image_size=512, text=None, num_tasks=0).batch(0)
  assert batch.arrays["image"].nbytes > 2**39 and batch.arrays["index"].shape == (2**20, 2)
