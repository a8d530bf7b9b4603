"""A run put together from its config, with every check a user can fail, before anything compiles."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ssljax import build, optim, sharding, transforms
from ssljax.augment.identity import Identity
from ssljax.data.captions import Captioner
from ssljax.data.corpus import Corpus
from ssljax.data.ict import ClozeStream, Passages
from ssljax.data.pipeline import Stream
from ssljax.data.source import Source
from ssljax.data.tasks import TaskStream
from ssljax.data.text_stream import TextStream
from ssljax.errors import UserError
from ssljax.training import config as config_lib
from ssljax.training import encoding
from ssljax.training import state as state_lib
from ssljax.training.feed import Feed, open_feed, task_data
from ssljax.types import Array, Batch, Objective, Params, PyTree, State, TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
  """The parts of one run.

  Attributes:
    config: the resolved config, what config.json holds.
    job: the same, checked and typed.
    sources: the training data: one source, or one a task.
    stream: its batches as a function of (seed, step).
    augment: device augmentation; where it changes from stage to stage, the last one's, which evaluation sees.
    stages: (step before which it ends, device augmentation) of each stage; the last one does not end (None).
    objective: the method.
    optimizer: transformation and learning rate.
    mesh: the devices.
    init: seed -> TrainState.
    like: the abstract state with shardings.
    batch: the abstract augmented batch.
    encode: (params, objective state, host batch) -> the objective's encoding, compiled once for all evaluations.
    encode_views: (params, objective state, key, host batch) -> {name of `health.features`: f32[B,2,D]}, of two views.
    captioner: makes rows of ids of texts, as those of the batches are; None where the run reads no captions.
  """

  config: Mapping[str, Any]
  job: config_lib.Job
  sources: tuple[Source | Corpus | Passages, ...]
  stream: Stream | TextStream | ClozeStream | TaskStream
  augment: Any
  stages: tuple[tuple[int | None, Any], ...]
  objective: Objective
  optimizer: optim.Optimizer
  mesh: jax.sharding.Mesh
  init: Callable[[Array], TrainState]
  like: PyTree
  batch: Batch
  encode: Callable[[Params, State, Batch], dict[str, Array]]
  encode_views: Callable[[Params, State, Array, Batch], dict[str, Array]]
  captioner: Captioner | None = None

  @property
  def source(self) -> Source | Corpus | Passages:
    """Returns the training data, of a stream its first task's."""
    return self.sources[0]

  def tasks(self) -> "list[Run]":
    """Returns the run as each task's alone: what is measured task by task; of a run without a stream itself."""
    parts = zip(self.sources, task_data(self.job), strict=True)
    return [
      dataclasses.replace(self, sources=(source,), job=dataclasses.replace(self.job, data=data))
      for source, data in parts
    ]


def assemble(
  config: Mapping[str, Any], *, devices: Sequence[jax.Device] | None = None, feed: Feed | None = None
) -> Run:
  """Returns the run a config describes.

  Args:
    config: the recipe.
    devices: what the mesh is made of; None: all there are. Devices to compile for need not be here.
    feed: the training data; None: those of the config, which are opened.

  Raises:
    UserError: anything in the config that does not fit: keys, types, source, sizes against devices, leaves the
      objective reads against leaves the data makes.
  """
  sections = config_lib.parse(config_lib.any_durations(config))
  mesh = sharding.make_mesh(**dataclasses.asdict(sections.mesh), devices=devices)
  _check_sizes(sections, mesh)
  feed = feed or open_feed(sections, mesh)
  source, stream, size = feed.sources[0], feed.stream, sections.data.batch_size
  config = config_lib.resolve_durations(config, batch_size=size, num_examples=feed.num_examples)
  config = _remember_vocabulary(config, source, feed.captioner)
  job = config_lib.parse(config)

  built = Identity() if job.augment is None else build.build(job.augment, "augment", where="augment")
  stages = getattr(built, "programs", ((None, built),))
  augment = stages[-1][1]
  optimizer = _frozen(build.build(job.optimizer, "optim", where="optimizer", batch_size=size), job.init)
  objective = build.build(job.objective, "objectives", where="objective")
  batch = _abstract_batch(stream.batch(job.data.begin).arrays, augment, size)
  _check_labels(job, objective, feed.sources)
  _check_objective(job, objective, batch)
  _check_vocabulary(objective, source)
  if feed.captioner is not None and hasattr(objective, "check_texts"):
    objective.check_texts(size=feed.captioner.size, end=feed.captioner.end)
  if isinstance(source, Passages) and hasattr(objective, "check_texts"):
    objective.check_texts(size=source.tokenizer.size, end=source.tokenizer.eos)

  init = state_lib.initialiser(objective, optimizer.transform, batch)
  with jax.set_mesh(mesh):  # a model that does not fit the mesh says so here
    abstract = jax.eval_shape(init, jax.ShapeDtypeStruct((), np.uint32))
    _check_stages(objective, abstract, stages, stream.batch(job.data.begin).arrays, size)
  like = state_lib.shardings(mesh, abstract, job.sharding, fsdp_min_size=job.fsdp_min_size)
  return Run(
    config=config,
    job=job,
    sources=feed.sources,
    stream=stream,
    augment=augment,
    stages=stages,
    objective=objective,
    optimizer=optimizer,
    mesh=mesh,
    init=init,
    like=like,
    batch=batch,
    encode=jax.jit(encoding.of_pictures(objective, augment)),
    encode_views=jax.jit(encoding.of_views(objective, augment, names=job.health.features if job.health else ())),
    captioner=feed.captioner,
  )


def _frozen(optimizer: optim.Optimizer, init: config_lib.Rules) -> optim.Optimizer:
  """Returns the optimiser with what `init` freezes frozen."""
  if not any(action == "freeze" for _, action in init):
    return optimizer
  return dataclasses.replace(optimizer, transform=transforms.freeze(optimizer.transform, init))


def _remember_vocabulary(
  config: Mapping[str, Any], source: Source | Corpus | Passages, captioner: Captioner | None
) -> Mapping[str, Any]:
  """Returns the config with the vocabulary's size and fingerprint in it, which a resume compares."""
  if isinstance(source, Corpus | Passages):
    key, identity = source.section, source.identity
  elif captioner is not None:
    key, identity = "captions", captioner.identity
  else:
    return config
  section = {**config["data"][key], "vocabulary": identity}
  return {**config, "data": {**config["data"], key: section}}


def _check_vocabulary(objective: Objective, source: Source | Corpus | Passages) -> None:
  found = getattr(objective, "vocab_size", None)
  if not isinstance(source, Corpus) or found is None or found >= source.vocabulary.size:
    return
  v = source.vocabulary
  raise UserError(
    f"objective.model.vocab_size: found {found}, expected at least {v.size}: {v.tokenizer.size} pieces, "
    f"{len(v.modes)} mode tokens and {v.sentinels} sentinels (the most spans a denoiser makes)"
  )


def _check_labels(
  job: config_lib.Job, objective: Objective, sources: Sequence[Source | Corpus | Passages | None]
) -> None:
  for source, data in zip(sources, task_data(job), strict=True):
    if isinstance(source, Source) and hasattr(objective, "check_labels"):
      objective.check_labels(source.num_classes, source=data.source)


def _check_sizes(job: config_lib.Job, mesh: jax.sharding.Mesh) -> None:
  size, devices = job.data.batch_size, sharding.batch_devices(mesh)
  if size % job.accumulate:
    raise UserError(f"data.batch_size: found {size}, expected a multiple of accumulate={job.accumulate}")
  if size // job.accumulate % devices:
    micro = f" / accumulate={job.accumulate}" if job.accumulate > 1 else ""
    raise UserError(f"data.batch_size: found {size}{micro}, expected a multiple of the {devices} devices of the mesh")


def _check_objective(job: config_lib.Job, objective: Objective, batch: Batch) -> None:
  name = job.objective["name"]
  for key in objective.batch_keys:
    if key not in batch:
      found = ", ".join(sorted(batch))
      made = "the data make" if job.augment is None else f"augment {job.augment['name']} and the data make"
      raise UserError(f"objective: {name} reads {key!r}, but {made} {found}")
  if "task" in objective.batch_keys and job.continual.order == "joint":
    raise UserError(f"continual.order: found joint, expected sequential: {name} wants tasks one after the other")
  if job.accumulate > 1 and objective.couples_examples:
    instead = " (objective.pairs=gather or ring computes it in blocks)" if hasattr(objective, "pairs") else ""
    raise UserError(
      f"accumulate: found {job.accumulate}, expected 1: the loss of {name} couples the examples of a batch{instead}"
    )


def _check_stages(
  objective: Objective, state: PyTree, stages: Sequence[tuple], arrays: Mapping[str, np.ndarray], size: int
) -> None:
  """Refuses a stage whose pictures the objective does not take."""
  for number, (_, augment) in enumerate(stages[:-1]):
    batch = _abstract_batch(arrays, augment, size)
    loss = lambda state, batch: objective.loss(
      state.params, state.objective_state, batch, rng=state.rng, step=state.step
    )
    try:
      jax.eval_shape(loss, state, batch)
    except UserError as error:
      raise UserError(f"augment.stages[{number}]: {error}") from error


def _abstract_batch(arrays: Mapping[str, np.ndarray], augment: Any, batch_size: int) -> Batch:
  """Returns the abstract global batch the objective sees; reads one real batch, so bad data shows here."""
  host = {key: jax.ShapeDtypeStruct((batch_size, *value.shape[1:]), value.dtype) for key, value in arrays.items()}
  keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), batch_size))
  return jax.eval_shape(augment, keys, host)
