"""What a run reads: pictures, or text where the config has a section for it."""

from typing import NamedTuple

import jax

from ssljax.data.corpus import Corpus, open_corpus
from ssljax.data.pipeline import Stream
from ssljax.data.source import Source, open_source
from ssljax.data.text_stream import TextStream
from ssljax.errors import UserError
from ssljax.training.config import Job


class Feed(NamedTuple):
  """The training data of a run.

  Attributes:
    source: pictures or a corpus.
    stream: its batches as a function of (seed, step).
    num_examples: examples in an epoch; of text, rows of the first one.
  """

  source: Source | Corpus
  stream: Stream | TextStream
  num_examples: int


def open_feed(job: Job) -> Feed:
  """Returns the feed of a job.

  Raises:
    UserError: a source, split, tokenizer or mixture that does not fit.
  """
  data, hosts = job.data, {"host": jax.process_index(), "num_hosts": jax.process_count()}
  if data.text is None:
    source = open_source(data.source, split=data.split, image_size=data.image_size)
    return Feed(source, Stream(source, seed=job.seed, batch_size=data.batch_size, **hosts), len(source))
  if job.augment is not None:
    raise UserError("augment: found a section, expected none for text (data.text)")
  corpus = open_corpus(data.source, data.text, split=data.split, trained_on=data.split)
  stream = corpus.stream(seed=job.seed, batch_size=data.batch_size, **hosts)
  return Feed(corpus, stream, stream.plan(0).rows)
