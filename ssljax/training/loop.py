"""The loop: next batch, one compiled step, metrics, checkpoints, evaluations, until the last step or a signal."""

import collections
import contextlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from ssljax import flops, sharding
from ssljax.checkpoint import Checkpoints
from ssljax.errors import UserError
from ssljax.schedules import PHASES, PhaseName
from ssljax.training import config as config_lib
from ssljax.training import state as state_lib
from ssljax.training.health import Slice, Watch
from ssljax.training.inherit import inherit
from ssljax.training.meter import Meter
from ssljax.training.programs import CompiledStep, compile_steps, program_of
from ssljax.training.progress import ProgressLine
from ssljax.training.run import Run
from ssljax.training.watch import Collapsed, CorruptRecords, Preempted, SkippedSteps, profiler, stop_signal, time_limit
from ssljax.types import Batch, TrainState
from ssljax.writer import Silence, Writer, open_writer

_AHEAD = 2  # steps dispatched ahead of an accelerator: enough to hide the host, few enough to bound memory
Evaluate = Callable[[TrainState], dict[str, float]]
Origin = tuple[pathlib.Path, int | None]


def start(
  run: Run, workdir: pathlib.Path, *, origin: Origin | None = None, say: Callable[[str], None] = print
) -> TrainState:
  """Returns the state a run begins with: resumed from `workdir`, else continued from `origin`, else initialised.

  Args:
    run: what is trained.
    workdir: a checkpoint in its checkpoints/ is resumed.
    origin: checkpoints folder and step of another run whose whole state a fresh `workdir` starts from; step None is
      its newest.
    say: prints a line.

  Raises:
    UserError: a checkpoint of another shape, none where one was asked for, or no step left after that of `origin`.
  """
  with contextlib.closing(_checkpoints(run, workdir)) as store:
    resumed = store.restore_latest(run.like, warn=say)
    if resumed:
      say(f"resuming at step {resumed[0]}")
      store.set_aside_after(resumed[0])
      return resumed[1]
  if origin is None:
    return state_lib.create(run.init, run.like, run.job.seed)
  state = _continue(run, origin, say)
  if int(state.step) >= run.job.steps:
    found = f"steps: found {run.job.steps}, expected more than the {int(state.step)} of the run that goes on"
    raise UserError(f"{found} (or init_step=restart)")
  return state


def train(
  run: Run,
  state: TrainState,
  workdir: pathlib.Path,
  *,
  measure: Evaluate | None = None,
  health: Slice | None = None,
  compiled: tuple[CompiledStep, ...] = (),
) -> TrainState:
  """Returns the state after `run.job.steps` steps; `state` is used up.

  Args:
    run: what to train.
    state: where to begin, from `start`.
    workdir: gets checkpoints/ and metrics.jsonl.
    measure: evaluators called every `evaluation.every` steps.
    health: what is measured every `health.every` steps.
    compiled: the steps, of an earlier call of `compile_steps` with the same run; none: they are compiled.

  Raises:
    UserError: too many corrupt records.
    Preempted: SIGTERM came; everything is saved.
    Collapsed: it did, and `health.alarm.action` is to stop; everything is saved.
    Diverged: `max_skipped` steps in a row were not finite.
  """
  if int(state.step) >= run.job.steps:
    return state
  with (
    contextlib.closing(_checkpoints(run, workdir)) as store,
    contextlib.closing(open_writer(workdir, start_step=int(state.step))) as writer,
    ProgressLine(run.job.steps) as progress,
    jax.set_mesh(run.mesh),
  ):
    compiled = compiled or compile_steps(run, begin=int(state.step))
    watch = Watch(health, workdir, writer, progress) if health else None
    return _Loop(run, store, writer, progress, measure, watch).from_state(state, workdir, compiled)


def _checkpoints(run: Run, workdir: pathlib.Path) -> Checkpoints:
  section = run.job.checkpoint
  boundaries = config_lib.ends(run.job)
  return Checkpoints(workdir / "checkpoints", keep=section.keep, keep_every=section.keep_every, keep_steps=boundaries)


def _continue(run: Run, origin: Origin, say: Callable[[str], None]) -> TrainState:
  folder, step = origin
  with contextlib.closing(Checkpoints(folder)) as other:
    if not other.steps():
      raise UserError(f"--from: no checkpoint in {folder}")
    if step is not None and step not in other.steps():
      raise UserError(f"--from: {folder} has no step {step}, expected one of {other.steps()}")
    if run.job.init:
      step = other.steps()[-1] if step is None else step
      state = inherit(run, other.restore_parts(step, run.like), place=f"{folder}/{step}", say=say)
    else:
      found = other.restore_latest(run.like, warn=say) if step is None else (step, other.restore(step, run.like))
      assert found is not None  # there is a step
      step, state = found
  if run.job.init_step == "restart":
    state = state.replace(step=jax.device_put(np.zeros_like(state.step), state.step.sharding))
  say(f"continuing from {folder} at step {step}, here step {int(state.step)}")
  return state


class _Loop:
  """The moving parts of one stretch of training; `from_state` runs it."""

  def __init__(
    self,
    run: Run,
    store: Checkpoints,
    writer: Writer | Silence,
    progress: ProgressLine,
    measure: Evaluate | None,
    watch: Watch | None,
  ):
    self._run, self._job = run, run.job
    self._store, self._writer, self._progress, self._measure, self._watch = store, writer, progress, measure, watch
    data = run.job.data
    self._corrupt = CorruptRecords(
      source=data.source, total=run.stream.epoch_size, limit=data.max_corrupt, say=progress.warn
    )
    self._skipped = SkippedSteps(limit=run.job.max_skipped, say=progress.say)
    # On CPU, two programs in flight whose collectives wait for each other's threads can deadlock (seen in jax 0.10.2).
    self._ahead = 0 if jax.default_backend() == "cpu" else _AHEAD
    self._last_phase: PhaseName | None = None
    self._pending: collections.deque[tuple[int, Any]] = collections.deque()

  def from_state(self, state: TrainState, workdir: pathlib.Path, compiled: tuple[CompiledStep, ...]) -> TrainState:
    """Returns the state after the job's last step."""
    start, data = int(state.step), self._job.data
    peak = flops.peak(self._run.mesh.devices.flat[0])
    if self._watch and self._watch.begin(start, state):
      raise Collapsed(f"collapsed by step {start}: nothing more is trained (health.alarm.action)")
    self._progress.begin(start)
    batches = self._run.stream.iterate(start, workers=data.workers, threads=data.threads)
    with (
      contextlib.closing(batches),
      stop_signal() as stop,
      profiler(self._job.profile, workdir / "profile") as trace,
      time_limit(self._job.max_step_seconds) as limit,
    ):
      self._meter = Meter(examples=data.batch_size, peak=peak and peak * self._run.mesh.size)
      for step in range(start + 1, self._job.steps + 1):
        limit()
        trace(step - 1)
        train_step, operations, _ = program_of(compiled, step - 1)
        with self._meter.waiting(operations):
          batch = next(batches)
        self._corrupt.add(batch.skipped)
        state, metrics = train_step(state, self._to_devices(batch.arrays))
        stopping = stop(step)  # asked once: what is not saved here must not stop the run
        collapsed = self._after(step, state, metrics, stopping=stopping)
        if stopping:
          raise Preempted(f"stopped by SIGTERM at step {step}; the same command goes on from there")
        if collapsed:
          raise Collapsed(f"stopped at step {step} because it collapsed (health.alarm.action); the state is saved")
    return state

  def _after(self, step: int, state: TrainState, metrics: Batch, *, stopping: bool) -> bool:
    """Logs, saves and evaluates as the job says; returns whether the run is to stop because it collapsed."""
    job, last = self._job, step == self._job.steps
    self._pending.append((step, metrics))
    self._settle(self._ahead)
    if step % job.log_every == 0 or last or stopping:
      self._log(step, metrics)
    else:
      self._progress.advance(step)
    with self._meter.paused():
      collapsed = bool(self._watch and self._watch.after(step, state))
      if step % job.checkpoint.every == 0 or last or stopping or collapsed:
        self._store.save(step, state, config=self._run.config)
      every = job.evaluation.every if job.evaluation else None
      if self._measure and every and step % every == 0 and not (last or stopping or collapsed):
        self._writer.write(step, {f"eval/{key}": value for key, value in self._measure(state).items()})
    return collapsed

  def _settle(self, ahead: int) -> None:
    """Waits until at most `ahead` steps are still being computed, and looks at the finished ones."""
    while len(self._pending) > ahead:
      self._skipped.add(*self._pending.popleft())

  def _log(self, step: int, metrics: Batch) -> None:
    self._settle(0)
    values = {key: float(value) for key, value in jax.device_get(metrics).items()}
    rate = self._run.optimizer.learning_rate
    values["train/learning_rate"] = float(rate(step - 1))
    values["train/corrupt_records"] = float(len(self._corrupt))
    values |= self._meter.read()
    values["train/phase"] = float(PHASES.index(self._phase(step - 1)))
    self._writer.write(step, values)
    self._progress.update(step, values)

  def _phase(self, step: int) -> PhaseName:
    """Returns the phase of the learning rate; says so where a new one has begun since the last log line."""
    phase = self._run.optimizer.learning_rate.phase(step)
    if phase != self._last_phase:
      self._progress.say(f"learning rate: {phase}")
    self._last_phase = phase
    return phase

  def _to_devices(self, arrays: Mapping[str, np.ndarray]) -> Batch:
    place = sharding.batch_sharding(self._run.mesh)
    return {key: jax.make_array_from_process_local_data(place, value) for key, value in arrays.items()}
