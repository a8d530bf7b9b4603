"""Values that depend on the step: learning rates, weight decays, temperatures, teacher decays.

A schedule is a row of phases. Nothing here needs a total number of steps unless its formula does, so a run on
`infinite` or `wsd` may go on for ever and be annealed in a branch at any step.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Literal, get_args

import jax.numpy as jnp

from ssljax.errors import UserError
from ssljax.types import Array

PhaseName = Literal["warmup", "cooldown", "constant", "anneal", "decay"]
PHASES: tuple[PhaseName, ...] = get_args(PhaseName)  # metrics count from 0 in this order


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
  """One piece of a schedule.

  Attributes:
    name: what the phase is called in logs.
    curve: f32[] steps since the phase began -> value.
    steps: its length; infinity for a last phase without end.
  """

  name: PhaseName
  curve: Callable[[Array], Array]
  steps: float = math.inf


@dataclasses.dataclass(frozen=True)
class Schedule:
  """A function step -> f32 value, made of phases that follow each other from step 0.

  After the last phase its end value stays. Steps are subtracted as integers and only then become float32, so
  values are right to float32 at any step below 2^31.

  Attributes:
    phases: only the last one may be infinite.
    period: steps after which the phases start again; None: never.
    factor: what every value is multiplied by.
  """

  phases: tuple[Phase, ...]
  period: int | None = None
  factor: float = 1.0

  def __call__(self, step: Array | int) -> Array:
    """Returns the value at `step` (int, or an integer array of any shape) as f32 of that shape."""
    step = jnp.asarray(step)
    step = step % self.period if self.period else step
    value, start = jnp.zeros(step.shape, jnp.float32), 0
    for phase in self.phases:
      here = jnp.clip((step - start).astype(jnp.float32), 0.0, phase.steps)
      value = jnp.where(step >= start, phase.curve(here), value)
      start += 0 if math.isinf(phase.steps) else int(phase.steps)
    return value * jnp.float32(self.factor)

  def phase(self, step: int) -> PhaseName:
    """Returns the name of the phase `step` is in (on the host); a boundary belongs to the phase it begins."""
    step, start, name = step % self.period if self.period else step, 0, self.phases[0].name
    for phase in self.phases:
      name = phase.name if step >= start else name
      start += phase.steps
    return name

  @classmethod
  def of(cls, value: "float | Schedule") -> "Schedule":
    """Returns the schedule itself, or the constant schedule of a number."""
    return value if isinstance(value, Schedule) else constant(value=value)

  def times(self, factor: float) -> "Schedule":
    """Returns the schedule with every value multiplied by `factor`."""
    return dataclasses.replace(self, factor=self.factor * factor)


def constant(*, value: float) -> Schedule:
  """Returns `value` at every step."""
  return Schedule((_hold(value),))


def infinite(
  *,
  peak: float,
  constant: float,
  minimum: float,
  warmup_steps: int,
  cooldown_steps: int,
  cooldown: Literal["cosine", "linear", "inverse_sqrt"] = "cosine",
  anneal_start: int | None = None,
  anneal_steps: int | None = None,
) -> Schedule:
  """Returns the infinite schedule: it has no total, so training may stop, branch or go on at any step.

      warmup    peak * n / warmup_steps
      cooldown  constant + (peak - constant) * s(p),   p = (n - warmup_steps) / cooldown_steps
      constant  constant, for ever
      anneal    constant * (minimum / constant)^((n - anneal_start) / anneal_steps)      only in a branch

  with s(p) = (1 + cos(pi p)) / 2 (cosine), 1 - p (linear), or 1 - f(p) / f(1), f(p) = 1 / sqrt(1 + 10 p) - 1
  (inverse_sqrt).

  Args:
    peak: value at the end of the warm-up.
    constant: value of the endless phase.
    minimum: value at the end of the anneal.
    warmup_steps: length of the warm-up, in steps.
    cooldown_steps: length of the cooldown, in steps.
    cooldown: shape of the cooldown.
    anneal_start: step at which a branch starts to anneal; None on the trunk.
    anneal_steps: length of the anneal, in steps; given together with `anneal_start`.

  Raises:
    UserError: unless 0 < minimum <= constant <= peak, lengths are not negative, and the anneal starts after the
      cooldown.

  Source: Singh, Janson, Mehrbod, Ibrahim, Rish, Belilovsky, Thérien, "Beyond Cosine Decay: On the effectiveness of
    Infinite Learning Rate Schedule for Continual Pre-training", 2025, arXiv 2503.02844; Ibrahim et al., "Simple and
    Scalable Strategies to Continually Pre-train Large Language Models", 2024, arXiv 2403.08763 (inverse_sqrt).
  Differs from the reference: the released code counts the cooldown by its END step as a share of the total.
  """
  _check_lengths(warmup_steps=warmup_steps, cooldown_steps=cooldown_steps)
  _check_order(minimum=minimum, constant=constant, peak=peak)
  start = warmup_steps + cooldown_steps
  anneal = lambda p: constant * (minimum / constant) ** p
  return Schedule(
    (
      *_warmup(0.0, peak, warmup_steps),
      *_curve("cooldown", lambda p: constant + (peak - constant) * _COOLDOWNS[cooldown](p), cooldown_steps),
      *_branch(constant, start, anneal, anneal_start, anneal_steps),
    )
  )


def wsd(
  *,
  peak: float,
  warmup_steps: int,
  shape: Literal["linear", "sqrt", "cosine", "square"] = "sqrt",
  start: float = 0.0,
  end: float = 0.0,
  anneal_start: int | None = None,
  anneal_steps: int | None = None,
) -> Schedule:
  """Returns the warmup-stable-decay schedule; without an anneal it is the trunk, which has no end.

      warmup  start + (peak - start) * n / warmup_steps
      stable  peak
      anneal  end + (peak - end) * s(p),   p = (n - anneal_start) / anneal_steps

  with s(p) = 1 - p (linear), 1 - sqrt(p) (sqrt), (1 + cos(pi p)) / 2 (cosine), 1 - p^2 (square).

  Raises:
    UserError: a negative value or length, or an anneal that starts within the warm-up.

  Source: Hägele, Bakouch, Kosson, Ben Allal, Von Werra, Jaggi, "Scaling Laws and Compute-Optimal Training Beyond
    Fixed Training Durations", 2024, arXiv 2405.18392 (sqrt is their best); Hu et al., "MiniCPM", 2024,
    arXiv 2404.06395 (the name).
  """
  _check_lengths(warmup_steps=warmup_steps)
  _check_values(peak=peak, start=start, end=end)
  anneal = lambda p: end + (peak - end) * _SHAPES[shape](p)
  return Schedule(
    (*_warmup(start, peak, warmup_steps), *_branch(peak, warmup_steps, anneal, anneal_start, anneal_steps))
  )


def cosine(*, peak: float, total_steps: int, warmup_steps: int = 0, end: float = 0.0) -> Schedule:
  """Returns a linear warm-up from 0 to `peak`, then half a cosine from `peak` to `end` at `total_steps`.

      end + (peak - end) / 2 * (1 + cos(pi (n - warmup_steps) / (total_steps - warmup_steps)))

  `end` may be larger than `peak`: a teacher's decay from 0.996 to 1 is `cosine(peak=0.996, end=1.0, ...)`.

  Raises:
    UserError: a negative value, or `total_steps` not larger than `warmup_steps`.

  Source: Loshchilov, Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017, arXiv 1608.03983.
  """
  return _ramp(_half_cosine, peak=peak, end=end, warmup_steps=warmup_steps, total_steps=total_steps)


def linear(*, peak: float, total_steps: int, warmup_steps: int = 0, end: float = 0.0) -> Schedule:
  """Returns a linear warm-up from 0 to `peak`, then a line from `peak` to `end` at `total_steps`.

  Raises:
    UserError: a negative value, or `total_steps` not larger than `warmup_steps`.
  """
  return _ramp(lambda p: 1 - p, peak=peak, end=end, warmup_steps=warmup_steps, total_steps=total_steps)


def repeated_cosine(*, peak: float, cycle_steps: int, warmup_steps: int = 0, end: float = 0.0) -> Schedule:
  """Returns `cosine` over `cycle_steps`, warm-up included, started anew every `cycle_steps` steps.

  The baseline of continual pretraining: one cycle for each dataset that arrives.

  Raises:
    UserError: a negative value, or `cycle_steps` not larger than `warmup_steps`.

  Source: Loshchilov, Hutter, 2017, arXiv 1608.03983.
  """
  _check_longer("cycle_steps", cycle_steps, warmup_steps)
  once = cosine(peak=peak, end=end, warmup_steps=warmup_steps, total_steps=cycle_steps)
  return dataclasses.replace(once, period=cycle_steps)


def staircase(*, peak: float, factor: float, boundaries: tuple[int, ...], warmup_steps: int = 0) -> Schedule:
  """Returns a linear warm-up from 0 to `peak`, which is multiplied by `factor` at each of the `boundaries`.

  RotNet on CIFAR-10 is `peak=0.1, factor=0.2, boundaries=("60ep", "120ep", "160ep")`.

  Args:
    peak: value after the warm-up.
    factor: what is left at a boundary.
    boundaries: steps, each more than the one before; the first more than `warmup_steps`.
    warmup_steps: length of the warm-up.

  Raises:
    UserError: a negative value, or boundaries that do not grow.
  """
  _check_values(peak=peak, factor=factor)
  _check_lengths(warmup_steps=warmup_steps)
  starts = (warmup_steps, *boundaries)
  for before, start in itertools.pairwise(starts):
    _check_longer("boundaries", start, before)
  stairs = [_hold(peak * factor**n, end - start) for n, (start, end) in enumerate(itertools.pairwise(starts))]
  return Schedule((*_warmup(0.0, peak, warmup_steps), *stairs, _hold(peak * factor ** len(boundaries))))


def rsqrt(*, peak: float, warmup_steps: int, warmup: Literal["constant", "linear"] = "constant") -> Schedule:
  """Returns peak * sqrt(warmup_steps / max(n, warmup_steps)), which has no end.

  T5 is `peak=0.01, warmup_steps=10_000`: 1 / sqrt(max(n, 10^4)), flat during its "warm-up".

  Args:
    peak: value at `warmup_steps`.
    warmup_steps: steps before the decay, at least 1.
    warmup: flat (T5), or linear from 0 (Vaswani et al., 2017, arXiv 1706.03762).

  Raises:
    UserError: a negative value, or `warmup_steps` below 1.

  Source: Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer", 2020,
    arXiv 1910.10683, section 3.1.2.
  """
  _check_values(peak=peak)
  _check_longer("warmup_steps", warmup_steps, 0)
  before = {"linear": _warmup(0.0, peak, warmup_steps), "constant": (_hold(peak, warmup_steps),)}[warmup]
  decay = Phase(name="decay", curve=lambda n: peak * jnp.sqrt(warmup_steps / (warmup_steps + n)))
  return Schedule((*before, decay))


def _half_cosine(p: Array) -> Array:
  # (1 + cos(pi p)) / 2 loses all its digits to cancellation near p = 1; this form does not.
  return jnp.sin(0.5 * jnp.pi * (1 - p)) ** 2


def _inverse_sqrt(p: Array) -> Array:
  f = lambda t: 1 / (1 + 10 * t) ** 0.5 - 1
  return 1 - f(p) / f(1.0)


_SHAPES = {
  "linear": lambda p: 1 - p,
  "sqrt": lambda p: 1 - jnp.sqrt(p),
  "cosine": _half_cosine,
  "square": lambda p: 1 - p**2,
}
_COOLDOWNS = {"cosine": _half_cosine, "linear": lambda p: 1 - p, "inverse_sqrt": _inverse_sqrt}


def _hold(value: float, steps: float = math.inf) -> Phase:
  return Phase(name="constant", curve=lambda n: jnp.full_like(n, value), steps=steps)


def _curve(name: PhaseName, shape: Callable[[Array], Array], steps: int) -> tuple[Phase, ...]:
  """Returns the phase value = shape(share of `steps` done), or no phase where it has no steps."""
  return (Phase(name=name, curve=lambda n: shape(n / steps), steps=steps),) if steps else ()


def _warmup(start: float, peak: float, steps: int) -> tuple[Phase, ...]:
  return _curve("warmup", lambda p: start + (peak - start) * p, steps)


def _branch(
  value: float, begin: int, anneal: Callable[[Array], Array], anneal_start: int | None, anneal_steps: int | None
) -> tuple[Phase, ...]:
  """Returns `value` for ever from step `begin`, or until `anneal_start` and then the anneal."""
  if anneal_start is None and anneal_steps is None:
    return (_hold(value),)
  if anneal_start is None or anneal_steps is None:
    raise UserError(
      f"schedule: anneal_start is {anneal_start} and anneal_steps is {anneal_steps}: give both or neither"
    )
  if anneal_start < begin:
    raise UserError(f"schedule: anneal_start is {anneal_start}, expected at least {begin}, where the constant begins")
  _check_longer("anneal_steps", anneal_steps, 0)
  return _hold(value, anneal_start - begin), *_curve("anneal", anneal, anneal_steps)


def _ramp(shape: Callable[[Array], Array], *, peak: float, end: float, warmup_steps: int, total_steps: int) -> Schedule:
  _check_lengths(warmup_steps=warmup_steps)
  _check_longer("total_steps", total_steps, warmup_steps)
  _check_values(peak=peak, end=end)
  decay = _curve("decay", lambda p: end + (peak - end) * shape(p), total_steps - warmup_steps)
  return Schedule((*_warmup(0.0, peak, warmup_steps), *decay))


def _check_lengths(**lengths: int) -> None:
  for key, steps in lengths.items():
    if steps < 0:
      raise UserError(f"schedule: {key} is {steps}, expected 0 or more steps")


def _check_values(**values: float) -> None:
  for key, value in values.items():
    if not 0 <= value < math.inf:
      raise UserError(f"schedule: {key} is {value}, expected a finite number, 0 or more")


def _check_longer(key: str, steps: int, least: int) -> None:
  if steps <= least:
    raise UserError(f"schedule: {key} is {steps}, expected more than {least} steps")


def _check_order(*, minimum: float, constant: float, peak: float) -> None:
  _check_values(minimum=minimum, constant=constant, peak=peak)
  if not 0 < minimum <= constant:
    raise UserError(f"schedule: minimum is {minimum}, expected more than 0 and at most constant ({constant})")
  if constant > peak:
    raise UserError(f"schedule: constant is {constant}, expected at most peak ({peak})")
