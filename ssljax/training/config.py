"""The keys of a config: one dataclass a section, checked before anything is read or compiled."""

import dataclasses
import itertools
import re
from collections.abc import Mapping
from typing import Any, Literal

from ssljax import build, durations
from ssljax.data.captions import Captions
from ssljax.data.corpus import Text
from ssljax.data.ict import Cloze
from ssljax.data.tasks import Order, Replay
from ssljax.errors import UserError, nearest
from ssljax.evaluators.collapse import Alarm

Section = Mapping[str, Any]
Rules = tuple[tuple[str, str], ...]
ACTIONS = ("load", "load PATH", "reinit", "freeze")

# Keys that may differ when a work directory is resumed: they change how a run is watched or laid out, not what it is.
FREE = (
  r"^((steps|log_every|max_step_seconds|sharding|fsdp_min_size|data\.(workers|threads|max_corrupt))$"
  r"|health\.(every$|alarm)|(mesh|evaluation|checkpoint|profile)\.)"
)
_DURATION = re.compile(r"^[0-9.]+(e[0-9]+)?(ep|ex)$")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
  """Where examples come from and how many make a step.

  Attributes:
    source: "embedded:NAME", "folder:DIR", "npz:FILE", "arrayrecord:GLOB", "pairs:FILE.jsonl", "webdataset:GLOB",
      "tfds:NAME" or "text:GLOB".
    batch_size: examples a step, over all devices and hosts.
    split: "train", "test", "all" or a slice such as "train[:90%]".
    image_size: pixels a side of the square canvas that goes to the device.
    workers: processes that read and decode; 0: threads only, which is faster for pictures.
    threads: threads that read and decode, in each process.
    max_corrupt: share of a source's records that may be undecodable, or without the caption that is asked for, before
      training stops.
    text: how texts become batches; none: the source holds pictures, or is read as `ict` says.
    captions: how the captions of pictures become `text` (or `texts`) of a batch; none: pictures alone.
    ict: how texts become queries and blocks of the inverse cloze task.
    clusters: a file of `ssljax data clusters`: batches are of different clusters of the pictures (G-SimCLR); none: the
      order is random.
    begin: written by the program: the step whose batch is the source's first, where a run was continued on other data.
  """

  source: str | None = None
  batch_size: int
  split: str = "train"
  image_size: int = 224
  workers: int = 0
  threads: int = 2
  max_corrupt: float = 0.001
  text: Text | None = None
  captions: Captions | None = None
  ict: Cloze | None = None
  clusters: str | None = None
  begin: int = 0

  def __post_init__(self):
    if self.clusters is not None and not self.pictures:
      raise UserError("data.clusters: found a file, expected none for text: clusters are of pictures")
    if self.text is not None and self.ict is not None:
      raise UserError("data.ict: found a section beside data.text, expected one of them")
    if not self.pictures and self.captions is not None:
      found = "data.text" if self.ict is None else "data.ict"
      raise UserError(f"data.captions: found a section, expected none for text ({found}): captions belong to pictures")

  @property
  def pictures(self) -> bool:
    """Whether batches hold pictures."""
    return self.text is None and self.ict is None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
  """One data set of a stream.

  Attributes:
    name: what tables call it.
    steps: how long it is trained on.
    source, split: as in `data`, whose other keys hold for all tasks.
  """

  name: str
  steps: int
  source: str
  split: str = "train"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Continual:
  """How a stream of tasks is trained.

  Attributes:
    order: sequential; or joint: all tasks mixed from the first step on, what forgetting is compared with.
    replay: old examples among the new; none: none.
    anneal_steps: length of the annealed side branch that is measured at the end of each task; none: the trunk is
      measured as it is.
  """

  order: Order = "sequential"
  replay: Replay | None = None
  anneal_steps: int | None = None

  def __post_init__(self):
    if self.order == "joint" and self.anneal_steps:
      raise UserError("continual.anneal_steps: found a branch, expected none where continual.order is joint")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
  """What is measured on frozen features, and when.

  Attributes:
    evals: sections of `evaluators` by any name, e.g. {"knn": {"name": "knn.KNN", "k": 20}}.
    source: the labelled source; none: the training source. Of queries and blocks (`data.ict`) text, or "beir:FOLDER".
    train: the split probes are fitted on.
    test: the split they are scored on; of BEIR's files the name of one in qrels/.
    every: steps between evaluations while training; none: only at the end.
    batch_size: examples a batch of feature extraction.
    feature: which output of `Objective.encode` is measured.
    baselines: "on": at the end the untrained network and raw pixels are measured, too; "off": they are not, where
      another run of the same network has their numbers.
  """

  evals: Section
  source: str | None = None
  train: str = "train"
  test: str = "test"
  every: int | None = None
  batch_size: int = 256
  feature: str = "embedding"
  baselines: Literal["on", "off"] = "on"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Health:
  """What is measured without labels while a run of pictures goes on: RankMe, standard deviation, alignment, uniformity.

  Attributes:
    every: steps between measurements; a run's first state is measured too.
    examples: pictures that are measured, evenly spread over the split; two augmented views of each.
    source: where they come from; none: `evaluation.source`, else the training source (of a stream its first task's).
    split: which of its splits; none: `evaluation.test`, else "test".
    features: which outputs of `Objective.encode` are measured; those of them that the objective has.
    alarm: when the run is said to collapse; none: never.
  """

  every: int = 50
  examples: int = 256
  source: str | None = None
  split: str | None = None
  features: tuple[str, ...] = ("embedding", "projection")
  alarm: Alarm | None = dataclasses.field(default_factory=Alarm)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
  """When the state is saved: every `every` steps and at the end; the `keep` newest and each `keep_every`-th stay."""

  every: int = 1000
  keep: int = 2
  keep_every: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mesh:
  """How the devices are arranged; -1 is what is left.

  Attributes:
    slice: TPU slices (or groups of hosts) with a slow network between them; each holds the whole state.
    data: copies of the state within a slice.
    fsdp: devices that share one copy of the state; the batch lies over slice x data x fsdp.
    tensor: devices that share the heads and hidden numbers of each layer, and the examples.
  """

  slice: int = 1
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
    steps: optimiser steps the run takes; raising it goes on from where the run stands. Of a stream: none, its tasks
      say.
    stream: data sets that arrive one after the other; data.source is none then.
    continual: how the stream is trained.
    init: what `--from` takes from the other run: (regex, "load" | "reinit" | "freeze") over paths of the TrainState,
      the first match counts, "load" where none does. A frozen parameter is loaded and never moves; single layers of a
      stack are frozen by their numbers, ("text/encoder/blocks/[0-5]/", "freeze"). "load PATH/" takes a leaf from
      where PATH/ stands in its path for what the regex finds: ("^params/", "load objective_state/teacher/").
    init_step: whether the step and with it the schedules go on ("continue") or begin at 0 ("restart").
    seed: decides parameters, data order, augmentations and masks.
    accumulate: microbatches a step.
    mesh: how the devices are arranged.
    sharding: path rules (regex, strategy) over the whole TrainState, first match wins; the strategies are those of
      `sharding.state_sharding`.
    fsdp_min_size: numbers a leaf must have to be cut over `mesh.fsdp`.
    checkpoint: when the state is saved.
    evaluation: what is measured; none: nothing.
    health: what is measured without labels while the run goes on, and when it is said to collapse; none: nothing.
    log_every: steps between lines of metrics.jsonl.
    max_skipped: consecutive steps with a loss or gradient that is not finite before the run stops.
    max_step_seconds: seconds a step may take, with its saving and measuring, before the process prints where it
      hangs and ends; none: for ever.
    profile: which steps are profiled; none: none.
  """

  objective: Section
  optimizer: Section
  data: Data
  steps: int = 0
  stream: tuple[Task, ...] = ()
  continual: Continual = Continual()
  init: Rules = ()
  init_step: Literal["continue", "restart"] = "continue"
  augment: Section | None = None
  seed: int = 0
  accumulate: int = 1
  mesh: Mesh = Mesh()
  sharding: tuple[tuple[str, str], ...] = ((".*", "fsdp+tensor"),)
  fsdp_min_size: int = 2**14
  checkpoint: Checkpoint = Checkpoint()
  evaluation: Evaluation | None = None
  health: Health | None = None
  log_every: int = 20
  max_skipped: int = 10
  max_step_seconds: float | None = None
  profile: Profile | None = None


def parse(config: Section) -> Job:
  """Returns the checked job of a resolved config.

  Raises:
    UserError: an unknown or missing key, a wrong type, a number out of range.
  """
  job = _with_stream(build.construct(Job, config))
  positive = {
    "steps": job.steps,
    "data.batch_size": job.data.batch_size,
    "data.image_size": job.data.image_size,
    "data.threads": job.data.threads,
    "accumulate": job.accumulate,
    "log_every": job.log_every,
    "checkpoint.every": job.checkpoint.every,
    "checkpoint.keep": job.checkpoint.keep,
  } | ({"health.every": job.health.every} if job.health else {})
  for key, value in positive.items():
    if value < 1:
      raise UserError(f"{key}: found {value}, expected at least 1")
  for pattern, action in job.init:
    if action not in ACTIONS and not action.startswith("load "):
      raise UserError(f"init: {pattern!r} has the action {nearest(action, ACTIONS)}")
  return job


def _with_stream(job: Job) -> Job:
  """Returns the job with the steps of its stream, and the stream's first source as the one that is shown."""
  if not job.stream:
    if job.data.source is None:
      raise UserError("data.source: missing, expected str (or a stream of tasks)")
    return job
  if job.data.source is not None:
    raise UserError("data.source: found one, expected none: the tasks of the stream have their own")
  for number, task in enumerate(job.stream):
    if task.steps < 1:
      raise UserError(f"stream[{number}].steps: found {task.steps}, expected at least 1")
  names = [task.name for task in job.stream]
  if len(set(names)) < len(names):
    raise UserError(f"stream: found the names {', '.join(names)}, expected each once")
  total = job.data.begin + sum(task.steps for task in job.stream)
  if job.steps not in (0, total):
    raise UserError(f"steps: found {job.steps}, expected none or {total}: the stream's tasks say")
  first = job.stream[0]
  return dataclasses.replace(
    job, steps=total, data=dataclasses.replace(job.data, source=first.source, split=first.split)
  )


def ends(job: Job) -> tuple[int, ...]:
  """Returns the step each task of the stream ends before."""
  return tuple(job.data.begin + end for end in itertools.accumulate(task.steps for task in job.stream))


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


def any_durations(config: Section) -> Section:
  """Returns the config with its durations in some number of steps: what can be checked before an epoch is known.

  A stream's are left, for its feed is made of them: they are refused unless they are steps.
  """
  return {**resolve_durations(config, batch_size=1, num_examples=1)} | {
    key: config[key] for key in ("stream", "continual") if key in config
  }


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
