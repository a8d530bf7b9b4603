"""The compiled programs of a run: one step, or where the augmentation changes at some steps one for each stage."""

from typing import Any, NamedTuple

import jax

from ssljax import flops, sharding
from ssljax.training.run import Run
from ssljax.training.step import make_step


class CompiledStep(NamedTuple):
  """A step ready to run, and the floating-point operations it takes.

  Attributes:
    train_step: (state, batch on the devices) -> (state, metrics); the state is used up.
    operations: floating-point operations of a step, recomputation included.
    until: the step it ends before; None: it does not end.
  """

  train_step: Any
  operations: int
  until: int | None = None


def compile_steps(run: Run, *, begin: int = 0) -> tuple[CompiledStep, ...]:
  """Returns the programs of a run that are not over at step `begin`, in their order."""
  last = run.job.steps
  ends = [0, *(until for until, _ in run.stages if until is not None)]
  ahead = [
    (until, augment)
    for start, (until, augment) in zip(ends, run.stages, strict=True)
    if start < last and (until is None or until > begin)
  ]
  return tuple(_compiled(trace_step(run, augment), until) for until, augment in ahead)


def program_of(programs: tuple[CompiledStep, ...], step: int) -> CompiledStep:
  """Returns the program of a step, the first is 0."""
  return next(program for program in programs if program.until is None or step < program.until)


def _compiled(traced: Any, until: int | None) -> CompiledStep:
  return CompiledStep(traced.lower().compile(), flops.count_jaxpr(traced.jaxpr), until)


def trace_step(run: Run, augment: Any = None) -> Any:
  """Returns the traced step of a run, a `jax.stages.Traced`: what is lowered and compiled, for whatever devices.

  Args:
    run: whose step.
    augment: the augmentation of a stage; None: that of the last one.
  """
  batch = run.stream.batch(run.job.data.begin).arrays
  options = {"accumulate": run.job.accumulate, "frozen": run.job.init}
  step = make_step(run.objective, augment or run.augment, run.optimizer.transform, **options)
  place, size = sharding.batch_sharding(run.mesh), run.job.data.batch_size
  abstract = {k: jax.ShapeDtypeStruct((size, *v.shape[1:]), v.dtype, sharding=place) for k, v in batch.items()}
  where = jax.tree.map(lambda leaf: leaf.sharding, run.like)
  jitted = jax.jit(step, donate_argnums=0, out_shardings=(where, sharding.replicated(run.mesh)))
  return jitted.trace(run.like, abstract)
