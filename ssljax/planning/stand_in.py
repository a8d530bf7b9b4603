"""Batches of a config's shapes without its data: a plan is made where the pod's data set is not."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ssljax.data import mixture as mixtures
from ssljax.data.captions import Captions
from ssljax.data.corpus import Text
from ssljax.data.ict import Cloze
from ssljax.data.pipeline import HostBatch, index_words
from ssljax.data.text_stream import TextStream
from ssljax.data.tokenizer import ByteTokenizer
from ssljax.data.vocabulary import Vocabulary

EPOCH = 1_281_167  # examples: durations in epochs are turned into steps as if the data were ImageNet-1k


@dataclasses.dataclass(frozen=True)
class StandIn:
  """A stream whose batches are all the same, and take no memory however large.

  Attributes:
    row: name -> array of one example, without the example's axis.
    batch_size: examples a batch.
  """

  row: Mapping[str, np.ndarray]
  batch_size: int

  @property
  def epoch_size(self) -> int:
    """Returns the examples of ImageNet-1k."""
    return EPOCH

  def batch(self, step: int) -> HostBatch:
    """Returns the arrays [B,...] and `index` uint32[B,2]; every step's are the same."""
    del step
    rows = {key: np.broadcast_to(value, (self.batch_size, *value.shape)) for key, value in self.row.items()}
    return HostBatch(rows | {"index": index_words(np.arange(self.batch_size, dtype=np.int64))}, ())


def stand_in(
  *,
  batch_size: int,
  image_size: int,
  text: Text | None,
  num_tasks: int,
  captions: Captions | None = None,
  ict: Cloze | None = None,
) -> StandIn:
  """Returns the stand-in of a data section.

  Args:
    batch_size: examples a batch.
    image_size: side of the canvas, pixels.
    text: how texts become batches; None: pictures, black and labelled.
    num_tasks: tasks of a stream, whose batches say which they come from and have no labels; 0: no stream.
    captions: how the captions of pictures become rows; None: pictures alone.
    ict: how texts become queries and blocks; None: not.
  """
  row = _picture(image_size) if text is None else _text(text)
  if captions is not None:
    row[captions.key] = np.zeros(captions.shape, np.int32)
  if ict is not None:
    row = {"query": np.ones(ict.query_length, np.int32), "block": np.ones(ict.block_length, np.int32)}
  if num_tasks:
    row = {key: value for key, value in row.items() if key != "label"} | {"task": np.zeros((), np.int32)}
  return StandIn(row, batch_size)


def _picture(size: int) -> dict[str, np.ndarray]:
  return {
    "image": np.zeros((size, size, 3), np.uint8),
    "aspect": np.ones((), np.float32),
    "label": np.zeros((), np.int32),
  }


class _Tokens(NamedTuple):
  """What a `TextStream` reads of `tokens.Tokens`."""

  tokens: np.ndarray
  offsets: np.ndarray


def _text(text: Text) -> dict[str, np.ndarray]:
  """Returns a row of one long document of one letter, corrupted and laid out as the section says.

  The ids are bytes': a tokenizer decides which ids there are, not how many a row has.
  """
  mixture = text.mix(text.denoisers or mixtures.named(text.mixture))
  count = 4 * sum(mixture.capacity)
  tokens = _Tokens(np.full(count, 100, np.uint16), np.array([0, count]))
  vocabulary = Vocabulary(ByteTokenizer(), mixture.mode_names, max(text.sentinels or 0, mixture.sentinels))
  stream = TextStream(tokens=tokens, mixture=mixture, vocabulary=vocabulary, seed=0, batch_size=1)
  return {key: value[0] for key, value in stream.batch(0).arrays.items() if key != "index"}
