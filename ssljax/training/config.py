"""The keys of a config: one dataclass a section, checked before anything is read or compiled."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from ssljax import build, durations
from ssljax.data.corpus import Text
from ssljax.errors import UserError

Section = Mapping[str, Any]

# Keys that may differ when a work directory is resumed: they change how a run is watched, not what it computes.
FREE = r"^(steps$|log_every$|data\.(workers|threads|max_corrupt)$|evaluation\.|checkpoint\.|profile\.)"
_DURATION = re.compile(r"^[0-9.]+(e[0-9]+)?(ep|ex)$")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
  """Where examples come from and how many make a step.

  Attributes:
    source: "embedded:NAME", "folder:DIR", "npz:FILE", "arrayrecord:GLOB", "tfds:NAME" or "text:GLOB".
    batch_size: examples a step, over all devices and hosts.
    split: "train", "test", "all" or a slice such as "train[:90%]".
    image_size: pixels a side of the square canvas that goes to the device.
    workers: processes that read and decode; 0: threads only, which is faster for pictures.
    threads: threads that read and decode, in each process.
    max_corrupt: share of a source's records that may be undecodable before training stops.
    text: how texts become batches; none: the source holds pictures.
  """

  source: str
  batch_size: int
  split: str = "train"
  image_size: int = 224
  workers: int = 0
  threads: int = 2
  max_corrupt: float = 0.001
  text: Text | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
  """What is measured on frozen features, and when.

  Attributes:
    evals: sections of `evaluators` by any name, e.g. {"knn": {"name": "knn.KNN", "k": 20}}.
    source: the labelled source; none: the training source.
    train: the split probes are fitted on.
    test: the split they are scored on.
    every: steps between evaluations while training; none: only at the end.
    batch_size: examples a batch of feature extraction.
    feature: which output of `Objective.encode` is measured.
  """

  evals: Section
  source: str | None = None
  train: str = "train"
  test: str = "test"
  every: int | None = None
  batch_size: int = 256
  feature: str = "embedding"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
  """When the state is saved: every `every` steps and at the end; the `keep` newest and each `keep_every`-th stay."""

  every: int = 1000
  keep: int = 2
  keep_every: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mesh:
  """How the devices are arranged; -1 is what is left. The batch lies over `data` x `fsdp`."""

  data: int = -1
  fsdp: int = 1
  tensor: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Profile:
  """Which steps the jax profiler records into WORKDIR/profile."""

  start: int
  steps: int = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
  """One pretraining run.

  Attributes:
    objective: section of `objectives`.
    augment: section of `augment`; none: batches are used as they are (text).
    optimizer: section of `optim`.
    data: where examples come from.
    steps: optimiser steps the run takes; raising it goes on from where the run stands.
    seed: decides parameters, data order, augmentations and masks.
    accumulate: microbatches a step.
    mesh: how the devices are arranged.
    sharding: path rules (regex, strategy) over the whole TrainState, first match wins.
    checkpoint: when the state is saved.
    evaluation: what is measured; none: nothing.
    log_every: steps between lines of metrics.jsonl.
    max_skipped: consecutive steps with a loss or gradient that is not finite before the run stops.
    profile: which steps are profiled; none: none.
  """

  objective: Section
  optimizer: Section
  data: Data
  steps: int
  augment: Section | None = None
  seed: int = 0
  accumulate: int = 1
  mesh: Mesh = Mesh()
  sharding: tuple[tuple[str, str], ...] = ((".*", "replicate"),)
  checkpoint: Checkpoint = Checkpoint()
  evaluation: Evaluation | None = None
  log_every: int = 20
  max_skipped: int = 10
  profile: Profile | None = None


def parse(config: Section) -> Job:
  """Returns the checked job of a resolved config.

  Raises:
    UserError: an unknown or missing key, a wrong type, a number out of range.
  """
  job = build.construct(Job, config)
  positive = {
    "steps": job.steps,
    "data.batch_size": job.data.batch_size,
    "data.image_size": job.data.image_size,
    "data.threads": job.data.threads,
    "accumulate": job.accumulate,
    "log_every": job.log_every,
    "checkpoint.every": job.checkpoint.every,
    "checkpoint.keep": job.checkpoint.keep,
  }
  for key, value in positive.items():
    if value < 1:
      raise UserError(f"{key}: found {value}, expected at least 1")
  return job


def resolve_durations(config: Any, *, batch_size: int, num_examples: int) -> Any:
  """Returns the config with durations in epochs ("40ep") and examples ("1e6ex") turned into steps."""
  if isinstance(config, Mapping):
    items = config.items()
    return {key: resolve_durations(v, batch_size=batch_size, num_examples=num_examples) for key, v in items}
  if isinstance(config, list | tuple):
    return [resolve_durations(v, batch_size=batch_size, num_examples=num_examples) for v in config]
  if isinstance(config, str) and _DURATION.match(config):
    return durations.to_steps(config, batch_size=batch_size, num_examples=num_examples)
  return config


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
  """Returns {"a.b": value} of a nested config."""
  if not isinstance(config, Mapping):
    return {prefix: config}
  flat: dict[str, Any] = {}
  for key, value in config.items():
    flat |= flatten(value, f"{prefix}.{key}" if prefix else key)
  return flat


def differences(old: Section, new: Section) -> list[str]:
  """Returns the keys, but the free ones, in which two configs differ, as "key (old -> new)"."""
  a, b = flatten(old), flatten(new)
  keys = [key for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key) and not re.search(FREE, key)]
  return [f"{key} ({a.get(key)!r} -> {b.get(key)!r})" for key in keys]
