"""What a run reads: pictures, or text where the config has a section for it."""

import dataclasses
from typing import NamedTuple

import jax

from ssljax import sharding
from ssljax.data.captions import Captioner
from ssljax.data.clusters import Clusters
from ssljax.data.clusters import load as load_clusters
from ssljax.data.corpus import Corpus, open_corpus
from ssljax.data.ict import ClozeStream, Passages, open_passages
from ssljax.data.pipeline import Stream
from ssljax.data.source import CAPTIONED, Source, open_source
from ssljax.data.tasks import TaskStream
from ssljax.data.text_stream import TextStream
from ssljax.errors import UserError
from ssljax.training.config import Data, Job, ends


class Feed(NamedTuple):
  """The training data of a run.

  Attributes:
    sources: pictures, corpora or passages; one, or one a task.
    stream: the batches as a function of (seed, step).
    num_examples: examples in an epoch; of text, rows of the first one.
    captioner: what makes `text` (or `texts`) of captions; None: nothing does.
  """

  sources: tuple[Source | Corpus | Passages, ...]
  stream: Stream | TextStream | ClozeStream | TaskStream
  num_examples: int
  captioner: Captioner | None = None


def open_feed(job: Job, mesh: jax.sharding.Mesh | None = None) -> Feed:
  """Returns the feed of a job: of each batch the rows that this process's devices hold on a mesh; None: all rows.

  Raises:
    UserError: a source, split, tokenizer or mixture that does not fit.
  """
  if not job.data.pictures and job.augment is not None:
    raise UserError(f"augment: found a section, expected none for text ({'data.ict' if job.data.ict else 'data.text'})")
  host, num_hosts = (0, 1) if mesh is None else sharding.reader(mesh)
  hosts = {"host": host, "num_hosts": num_hosts}
  captioner = _captioner(job)
  parts = [_open(job, data, hosts, captioner) for data in task_data(job)]
  sources, streams = zip(*parts, strict=True)
  stream = streams[0]
  if job.stream or job.data.begin:
    stream = TaskStream(
      streams=streams,
      ends=ends(job) or (2**62,),
      seed=job.seed,
      batch_size=job.data.batch_size,
      order=job.continual.order,
      replay=job.continual.replay,
      begin=job.data.begin,
      **hosts,
    )
  return Feed(sources, stream, stream.epoch_size, captioner)


def _captioner(job: Job) -> Captioner | None:
  """Returns what makes rows of captions; a vocabulary that is learnt is learnt from the first task's."""
  if job.data.captions is None:
    return None
  data = task_data(job)[0]
  learns = job.data.captions.tokenizer.startswith("train:") and data.source is not None
  source = open_source(data.source, split=data.split, image_size=data.image_size) if learns else None
  return Captioner(job.data.captions, learn_from=source)


def _clusters(job: Job, data: Data, size: int) -> Clusters | None:
  if data.clusters is None:
    return None
  if job.stream:
    raise UserError(f"data.clusters: found {data.clusters}, expected none for a stream of tasks")
  assert data.source is not None
  return load_clusters(data.clusters, source=data.source, split=data.split, size=size)


def task_data(job: Job) -> list[Data]:
  """Returns the data section of each task; of a job without a stream its one."""
  tasks = [dataclasses.replace(job.data, source=task.source, split=task.split) for task in job.stream]
  return tasks or [job.data]


def _open(
  job: Job, data: Data, hosts: dict[str, int], captioner: Captioner | None
) -> tuple[Source | Corpus | Passages, Stream | TextStream | ClozeStream]:
  assert data.source is not None
  if data.pictures:
    source = open_source(data.source, split=data.split, image_size=data.image_size)
    if captioner is not None and not source.has_captions:
      raise UserError(
        f"data.captions: {data.source} has no captions, expected pictures that have: {', '.join(CAPTIONED)}"
      )
    clusters = _clusters(job, data, len(source))
    return source, Stream(
      source, seed=job.seed, batch_size=data.batch_size, captioner=captioner, clusters=clusters, **hosts
    )
  assert job.data.source is not None
  # One vocabulary for all tasks: what is learnt is learnt from the first one's text.
  trained_on = (job.data.source, job.data.split)
  if data.ict is not None:
    passages = open_passages(data.source, data.ict, split=data.split, trained_on=trained_on)
    return passages, passages.stream(seed=job.seed, batch_size=data.batch_size, **hosts)
  assert data.text is not None
  corpus = open_corpus(data.source, data.text, split=data.split, trained_on=trained_on)
  return corpus, corpus.stream(seed=job.seed, batch_size=data.batch_size, **hosts)
