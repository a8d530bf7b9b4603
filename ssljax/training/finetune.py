"""Fine-tuning a run's encoder with some of the labels: a supervised objective in the same step."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from ssljax import sharding
from ssljax.augment.recipes import RECIPES
from ssljax.augment.views import Views
from ssljax.data.pipeline import Stream, epoch
from ssljax.data.source import Source, Subset
from ssljax.errors import UserError
from ssljax.evaluators.features import extract
from ssljax.evaluators.finetune import FineTune, choose
from ssljax.training import state as state_lib
from ssljax.training.evaluation import Measure
from ssljax.training.feed import Feed
from ssljax.training.programs import CompiledStep, compile_steps
from ssljax.training.run import Run, assemble
from ssljax.training.transplant import networks, placed, taught, weights
from ssljax.training.watch import Diverged, SkippedSteps
from ssljax.types import TrainState

_READ = 1024  # records whose labels are read at once
Begin = Callable[[TrainState], TrainState]


class _Trainer(NamedTuple):
  """A run of a supervised objective with its compiled step."""

  run: Run
  step: CompiledStep


def fine_tune(
  run: Run, measure: Measure, state: TrainState, settings: FineTune, *, say: Callable[[str], None] = print
) -> dict[str, float]:
  """Returns the accuracies on the test split, "SHARE/scratch", "SHARE/pretrained", "SHARE/distilled", and labels used.

  Args:
    run: the pretraining.
    measure: its labelled splits.
    state: its state; the teacher's parameters are used where the method has one, else their moving average where the
      optimiser keeps one.
    settings: how.
    say: prints a line.

  Raises:
    UserError: a source without labels, networks the objective has not, training that diverges.
  """
  return _FineTuning(run, measure, settings, say).scores(state)


class _FineTuning:
  """One call of `fine_tune`: what its trainings share."""

  def __init__(self, run: Run, measure: Measure, settings: FineTune, say: Callable[[str], None]):
    self._run, self._measure, self._settings, self._say = run, measure, settings, say
    self._spec = run.job.evaluation.source or run.job.data.source
    if measure.train.num_classes is None:
      raise UserError(f"evaluation.source: {self._spec} has no labels, expected a source with labels to fine-tune on")
    self._labels = labels_of(measure.train)
    self._networks = networks(run.objective, part=settings.part, projector_layers=settings.projector_layers)
    modules = {name: part.module for name, part in self._networks.items()}
    self._classifier = {"name": "classify.Classifier", "num_classes": measure.train.num_classes, **modules}
    plain = self._trainer(self._classifier | {"smoothing": settings.smoothing})
    decayed = settings.layer_decay and self._trainer(
      self._classifier | {"smoothing": settings.smoothing}, layer_decay=settings.layer_decay
    )
    self._trainers = {"scratch": plain, "pretrained": decayed or plain}

  def scores(self, state: TrainState) -> dict[str, float]:
    """Returns the numbers of every share."""
    untrained = state_lib.create(self._run.init, self._run.like, self._run.job.seed)
    starts = {"scratch": weights(self._networks, untrained), "pretrained": weights(self._networks, state)}
    student = self._student()
    found: dict[str, float] = {}
    for share in self._settings.shares:
      rows = choose(self._labels, share=share, seed=self._settings.seed)
      if len(rows) > round(share * np.sum(self._labels >= 0)):
        self._say(f"{share:.3g} of the labels is less than one a class: {len(rows)} are used, one a class")
      found[f"{share:g}/examples"] = len(rows)
      source = Subset(self._measure.train, rows)
      trained = None
      for name, start in starts.items():
        begin = functools.partial(placed, start=start)
        trained = self._train(self._trainers[name], f"{share:g}/{name}", source, begin)
        found[f"{share:g}/{name}"] = self._accuracy(self._trainers[name].run, trained)
      if student:
        begin = functools.partial(taught, teacher=trained)
        small = self._train(student, f"{share:g}/distilled", self._measure.train, begin)
        found[f"{share:g}/distilled"] = self._accuracy(student.run, small)
    return found

  def _student(self) -> _Trainer | None:
    """Returns the training of the student; the teacher is the network that is fine-tuned."""
    section = self._settings.distill
    if section is None:
      return None
    small = {"name": "classify.Classifier", "num_classes": self._classifier["num_classes"], "encoder": section.encoder}
    objective = {"name": "distill.Distill", "student": small, "teacher": self._classifier}
    changed = {"steps": section.steps, "learning_rate": section.learning_rate}
    settings = dataclasses.replace(self._settings, **{key: value for key, value in changed.items() if value})
    return self._trainer(objective | {"temperature": section.temperature}, settings=settings)

  def _trainer(
    self, objective: Mapping[str, Any], *, settings: FineTune | None = None, layer_decay: float | None = None
  ) -> _Trainer:
    """Returns the assembled and compiled training of an objective; its stream is of all training pictures."""
    run, settings = self._run, settings or self._settings
    rate = {"name": "cosine", "peak": settings.learning_rate, "total_steps": settings.steps}
    rate["warmup_steps"] = settings.steps // 10
    optimizer = {"name": "adamw", "learning_rate": rate, "weight_decay": settings.weight_decay}
    config = {key: run.config[key] for key in ("mesh", "sharding", "fsdp_min_size", "max_skipped") if key in run.config}
    config |= {
      "objective": objective,
      "augment": settings.augment or single_view(run.augment, recipe=settings.recipe),
      "optimizer": optimizer | ({"layer_decay": layer_decay} if layer_decay else {}),
      "data": {"source": self._spec, "batch_size": settings.batch_size, "image_size": run.job.data.image_size},
      "steps": settings.steps,
      "seed": settings.seed,
    }
    stream = self._stream(self._measure.train)
    feed = Feed((self._measure.train,), stream, stream.epoch_size)
    made = assemble(config, devices=list(run.mesh.devices.flat), feed=feed)
    return _Trainer(made, compile_steps(made)[0])

  def _stream(self, source: Source) -> Stream:
    host, num_hosts = sharding.reader(self._run.mesh)
    settings = self._settings
    return Stream(source, seed=settings.seed, batch_size=settings.batch_size, host=host, num_hosts=num_hosts)

  def _train(
    self, trainer: _Trainer, name: str, source: Source, begin: Callable[[TrainState], TrainState]
  ) -> TrainState:
    """Returns the state after training on a source; `begin` puts what is known into the first one."""
    made, steps = trainer.run, trainer.run.job.steps
    state = begin(state_lib.create(made.init, made.like, made.job.seed))
    skipped = SkippedSteps(limit=made.job.max_skipped, say=self._say)
    batches = itertools.islice(self._stream(source).iterate(threads=self._run.job.data.threads), steps)
    place, every = sharding.batch_sharding(made.mesh), max(1, steps // 5)
    for step, batch in enumerate(batches, start=1):
      arrays = {key: jax.make_array_from_process_local_data(place, value) for key, value in batch.arrays.items()}
      state, metrics = trainer.step.train_step(state, arrays)
      try:
        skipped.add(step, metrics)
      except Diverged as diverged:
        raise UserError(f"finetune {name}: {diverged}, expected a smaller learning_rate") from diverged
      if step % every == 0:
        self._say(f"finetune {name}: step {step}/{steps}  loss {float(metrics['train/loss']):.4f}")
    return state

  def _accuracy(self, made: Run, state: TrainState) -> float:
    """Returns the share of the test split that is classified rightly."""
    place, size = sharding.batch_sharding(made.mesh), self._run.job.evaluation.batch_size
    batches = (
      {key: jax.device_put(value, place) for key, value in batch.arrays.items()}
      for batch in epoch(self._measure.test, size)
    )
    encode = lambda batch: made.encode(state.params, state.objective_state, batch)
    logits, labels = extract(encode, batches, key="logits")
    return float(np.mean(logits.argmax(-1) == labels))


def single_view(augment: Any, *, recipe: str) -> dict[str, Any]:
  """Returns the section of a recipe's view of a picture, of the size and pixel statistics of `augment`.

  Raises:
    UserError: it is no `views.Views`.
  """
  if not isinstance(augment, Views):
    raise UserError(f"finetune.augment: missing, expected a section beside the run's own {type(augment).__name__}")
  section = {"name": "views.Views", "recipe": recipe, "size": augment.size, "filter": augment.interpolation}
  return section | {"normalize": augment.normalize or RECIPES[augment.recipe].normalize, "dtype": augment.dtype}


def labels_of(source: Source) -> np.ndarray:
  """Returns the labels int32[N] of a source; a record that cannot be read has -1. Nothing is decoded."""
  found = [np.zeros(0, np.int32)]
  for start in range(0, len(source), _READ):
    items, labels = source.fetch(np.arange(start, min(start + _READ, len(source))))
    bad = [isinstance(item, Exception) for item in items]
    found.append(np.where(bad, -1, labels).astype(np.int32))
  return np.concatenate(found)
