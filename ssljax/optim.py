"""Optimisers as the papers write them. The config section `optimizer` names one; these keys are common to all:

  learning_rate    number or schedule, in the reference's units where `scale` is given
  weight_decay     number or schedule; only parameters of two or more axes are decayed (biases, norms are not)
  no_decay         regular expressions; a parameter whose path one of them finds is not decayed either
  lr_rules         (regular expression, number or schedule) pairs: the first found in the path takes the place of
                   `learning_rate`, scaled as that is
  lr_multipliers   (regular expression, factor) pairs, the first found in the path counts; 0 freezes
  hold             (regular expression, step) pairs: before that step what the first found stands still
  layer_decay      factor a layer from the head down (fine-tuning); see `transforms.scale_by_layer`
  clip, clip_by    largest norm of the gradient, of all parameters together ("global") or each ("parameter")
  scale            learning rate times B / base_batch_size ("linear") or its square root ("sqrt")
  base_batch_size  examples
  batch_size       examples a step over all devices, B above; the builder gives it
  ema              decay of an average of the parameters, number or schedule; None: no average

SimCLR's rule 0.075 * sqrt(B) is `learning_rate=1.2, scale="sqrt"`.
"""

import dataclasses
from typing import Literal

import optax

from ssljax import transforms
from ssljax.errors import UserError
from ssljax.schedules import Schedule


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
  """An optimiser, ready to run.

  Attributes:
    transform: the optax transformation; `update(gradients, state, params, step=step)` wants the step.
    learning_rate: the learning rate by step, after scaling with the batch size.
    weight_decay: the weight decay by step.
  """

  transform: transforms.Transform
  learning_rate: Schedule
  weight_decay: Schedule


def adamw(
  *,
  learning_rate: float | Schedule,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  moment_dtype: Literal["float32", "bfloat16"] = "float32",
  weight_decay: float | Schedule = 0.0,
  no_decay: tuple[str, ...] = (),
  lr_rules: tuple[tuple[str, float | Schedule], ...] = (),
  lr_multipliers: tuple[tuple[str, float], ...] = (),
  hold: tuple[tuple[str, int], ...] = (),
  layer_decay: float | None = None,
  clip: float | None = None,
  clip_by: Literal["global", "parameter"] = "global",
  scale: Literal["none", "linear", "sqrt"] = "none",
  base_batch_size: int = 256,
  batch_size: int | None = None,
  ema: float | Schedule | None = None,
) -> Optimizer:
  """Returns AdamW: p <- p - lr * (m / (sqrt(v) + eps) + weight_decay * p), m and v bias-corrected.

  Args: see the module; `b1`, `b2` and `eps` are the paper's;
    moment_dtype: what m is stored in; bfloat16 saves 2 bytes a parameter. v stays float32: its steps of 1 - b2 are
      smaller than bfloat16's precision, so it would stand still.

  Raises:
    UserError: a value out of range, or `scale` without a batch size.

  Source: Loshchilov, Hutter, "Decoupled Weight Decay Regularization", 2019, arXiv 1711.05101.
  Differs from the reference: the decay is multiplied by the learning rate, as in PyTorch.
  """
  rates = _rates(learning_rate, lr_rules, scale, base_batch_size, batch_size)
  common = _Common(*rates, weight_decay, no_decay, lr_multipliers, hold, layer_decay, clip, clip_by, ema)
  return common.optimizer(
    optax.scale_by_adam(b1=b1, b2=b2, eps=eps, mu_dtype=moment_dtype), common.decay(), common.step()
  )


def sgd(
  *,
  learning_rate: float | Schedule,
  momentum: float = 0.9,
  acceleration: Literal["none", "nesterov"] = "none",
  weight_decay: float | Schedule = 0.0,
  no_decay: tuple[str, ...] = (),
  lr_rules: tuple[tuple[str, float | Schedule], ...] = (),
  lr_multipliers: tuple[tuple[str, float], ...] = (),
  hold: tuple[tuple[str, int], ...] = (),
  layer_decay: float | None = None,
  clip: float | None = None,
  clip_by: Literal["global", "parameter"] = "global",
  scale: Literal["none", "linear", "sqrt"] = "none",
  base_batch_size: int = 256,
  batch_size: int | None = None,
  ema: float | Schedule | None = None,
) -> Optimizer:
  """Returns SGD as PyTorch has it: g <- g + weight_decay * p, m <- momentum * m + g, p <- p - lr * m.

  Args: see the module; "nesterov" moves by g + momentum * m instead of m.

  Raises:
    UserError: a value out of range, or `scale` without a batch size.

  Source: Sutskever et al., "On the importance of initialization and momentum in deep learning", ICML 2013.
  """
  rates = _rates(learning_rate, lr_rules, scale, base_batch_size, batch_size)
  common = _Common(*rates, weight_decay, no_decay, lr_multipliers, hold, layer_decay, clip, clip_by, ema)
  trace = optax.trace(momentum, nesterov=acceleration == "nesterov")
  return common.optimizer(common.decay(), trace, common.step())


def lars(
  *,
  learning_rate: float | Schedule,
  momentum: float = 0.9,
  trust: float = 0.001,
  buffer: Literal["gradients", "steps"] = "gradients",
  weight_decay: float | Schedule = 0.0,
  no_decay: tuple[str, ...] = (),
  lr_rules: tuple[tuple[str, float | Schedule], ...] = (),
  lr_multipliers: tuple[tuple[str, float], ...] = (),
  hold: tuple[tuple[str, int], ...] = (),
  layer_decay: float | None = None,
  clip: float | None = None,
  clip_by: Literal["global", "parameter"] = "global",
  scale: Literal["none", "linear", "sqrt"] = "none",
  base_batch_size: int = 256,
  batch_size: int | None = None,
  ema: float | Schedule | None = None,
) -> Optimizer:
  """Returns LARS: for parameters of two or more axes g <- (g + wd * p) * trust * ||p|| / ||g + wd * p||, then momentum.

      buffer="gradients"   m <- momentum * m + g,        p <- p - lr * m      (MAE, MoCo v3, BYOL)
      buffer="steps"       m <- momentum * m + lr * g,   p <- p - m           (SimCLR)

  The two are one while the learning rate is constant. Biases and norms are neither decayed nor adapted.

  Args: see the module; `trust` is the paper's eta.

  Raises:
    UserError: a value out of range, or `scale` without a batch size.

  Source: You, Gitman, Ginsburg, "Large Batch Training of Convolutional Networks", 2017, arXiv 1708.03888.
  """
  rates = _rates(learning_rate, lr_rules, scale, base_batch_size, batch_size)
  common = _Common(*rates, weight_decay, no_decay, lr_multipliers, hold, layer_decay, clip, clip_by, ema)
  order = {"gradients": (optax.trace(momentum), common.step()), "steps": (common.step(), optax.trace(momentum))}
  return common.optimizer(common.decay(), transforms.scale_by_trust_ratio(trust), *order[buffer])


def adafactor(
  *,
  learning_rate: float | Schedule,
  decay_exponent: float = 0.8,
  update_clip: float = 1.0,
  step_size: Literal["relative", "absolute"] = "relative",
  min_factored_dim: int = 128,
  weight_decay: float | Schedule = 0.0,
  no_decay: tuple[str, ...] = (),
  lr_rules: tuple[tuple[str, float | Schedule], ...] = (),
  lr_multipliers: tuple[tuple[str, float], ...] = (),
  hold: tuple[tuple[str, int], ...] = (),
  layer_decay: float | None = None,
  clip: float | None = None,
  clip_by: Literal["global", "parameter"] = "global",
  scale: Literal["none", "linear", "sqrt"] = "none",
  base_batch_size: int = 256,
  batch_size: int | None = None,
  ema: float | Schedule | None = None,
) -> Optimizer:
  """Returns Adafactor as T5 uses it: no momentum, second moments of a matrix kept as a row and a column.

      v <- d v + (1 - d)(g^2 + 1e-30),   d = 1 - (t + 1)^-decay_exponent,   u = g / sqrt(v)
      p <- p - lr * max(RMS(p), 1e-3) * u / max(1, RMS(u) / update_clip)

  Args: see the module, and
    decay_exponent: how fast the average of v lengthens.
    update_clip: largest root mean square of u.
    step_size: "relative" to the size of the parameter as above, or "absolute", without max(RMS(p), 1e-3).
    min_factored_dim: v is factored where two axes are at least this long.

  Raises:
    UserError: a value out of range, or `scale` without a batch size.

  Source: Shazeer, Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", 2018, arXiv 1804.04235.
  Differs from the reference: weight decay (none in T5) is multiplied by the learning rate.
  """
  rates = _rates(learning_rate, lr_rules, scale, base_batch_size, batch_size)
  common = _Common(*rates, weight_decay, no_decay, lr_multipliers, hold, layer_decay, clip, clip_by, ema)
  moment = optax.scale_by_factored_rms(decay_rate=decay_exponent, min_dim_size_to_factor=min_factored_dim)
  size = {"relative": (transforms.scale_by_parameter_rms(1e-3),), "absolute": ()}[step_size]
  return common.optimizer(moment, transforms.clip_by_rms(update_clip), *size, common.decay(), common.step())


def _rates(
  learning_rate: float | Schedule,
  rules: tuple[tuple[str, float | Schedule], ...],
  scale: str,
  base_batch_size: int,
  batch_size: int | None,
) -> tuple[Schedule, tuple[tuple[str, Schedule], ...]]:
  """Returns the learning rate by step and those of the rules, scaled with the batch size."""
  _check_positive(learning_rate=learning_rate)
  for _, rate in rules:
    _check_positive(lr_rules=rate)
  factor = _factor(scale, base_batch_size, batch_size)
  scaled = lambda rate: Schedule.of(rate).times(factor)
  return scaled(learning_rate), tuple((pattern, scaled(rate)) for pattern, rate in rules)


def _factor(scale: str, base_batch_size: int, batch_size: int | None) -> float:
  if scale == "none":
    return 1.0
  if not batch_size or base_batch_size < 1:
    raise UserError(f"optimizer.scale: {scale} needs batch_size and base_batch_size, at least 1 each")
  ratio = batch_size / base_batch_size
  return {"linear": ratio, "sqrt": ratio**0.5}[scale]


def _check_positive(**values: float | Schedule | None) -> None:
  for key, value in values.items():
    if isinstance(value, int | float) and not 0 <= value < float("inf"):
      raise UserError(f"optimizer.{key}: found {value}, expected a finite number, 0 or more")


@dataclasses.dataclass(frozen=True)
class _Common:
  """The keys every optimiser has, and the parts of the chain they stand for."""

  learning_rate: Schedule
  lr_rules: tuple[tuple[str, Schedule], ...]
  weight_decay: float | Schedule
  no_decay: tuple[str, ...]
  lr_multipliers: tuple[tuple[str, float], ...]
  hold: tuple[tuple[str, int], ...]
  layer_decay: float | None
  clip: float | None
  clip_by: Literal["global", "parameter"]
  ema: float | Schedule | None

  def __post_init__(self) -> None:
    _check_positive(weight_decay=self.weight_decay, layer_decay=self.layer_decay, clip=self.clip)
    if isinstance(self.ema, int | float) and not 0 <= self.ema < 1:
      raise UserError(f"optimizer.ema: found {self.ema}, expected at least 0 and less than 1")

  def decay(self) -> transforms.Transform:
    """Returns u -> u + weight_decay * p."""
    return transforms.add_decay(Schedule.of(self.weight_decay), self.no_decay)

  def step(self) -> transforms.Transform:
    """Returns u -> -learning_rate * multiplier * u, the rate by path."""
    layers = (transforms.scale_by_layer(self.layer_decay),) if self.layer_decay is not None else ()
    paths = transforms.scale_by_path(self.lr_multipliers)
    rules = [(pattern, rate.times(-1.0)) for pattern, rate in self.lr_rules]
    return optax.chain(*layers, paths, transforms.scale_by_schedule(self.learning_rate.times(-1.0), rules))

  def optimizer(self, *parts: optax.GradientTransformation) -> Optimizer:
    """Returns the optimiser of the clip, then `parts`, then the average."""
    paths = {"lr_rules": self.lr_rules, "lr_multipliers": self.lr_multipliers, "hold": self.hold}
    checks = (
      transforms.check_rules("optimizer.no_decay", self.no_decay),
      # One place in the chain: checkpoints know the states behind it by their numbers.
      optax.chain(
        *(transforms.check_rules(f"optimizer.{key}", [regex for regex, _ in rules]) for key, rules in paths.items())
      ),
    )
    norms = {"global": optax.clip_by_global_norm, "parameter": transforms.clip_by_parameter_norm}
    clip = () if self.clip is None else (norms[self.clip_by](self.clip),)
    held = (transforms.hold(self.hold),) if self.hold else ()
    chain = optax.chain(*checks, *clip, *parts, *held)
    transform = chain if self.ema is None else transforms.with_ema(chain, decay=self.ema)
    return Optimizer(transform=transform, learning_rate=self.learning_rate, weight_decay=Schedule.of(self.weight_decay))
