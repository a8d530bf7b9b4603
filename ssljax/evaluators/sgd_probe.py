"""The papers' linear classification protocols, with their optimisers and schedules, on frozen features."""

import dataclasses
import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ssljax import optim, schedules
from ssljax.evaluators.features import Features
from ssljax.evaluators.linear_probe import Linear
from ssljax.schedules import Phase, Schedule
from ssljax.transforms import Transform
from ssljax.types import Array


@dataclasses.dataclass(frozen=True)
class SGDProbe:
  """Accuracy of a linear classifier trained by SGD or LARS on frozen features, as `sgd_probe`, share 0..1.

  The default is the protocol of MAE; `mae`, `simclr` and `moco` return the papers' settings. The learning rate is
  learning_rate * batch_size / 256.

  Attributes:
    optimizer: "sgd" with momentum, "nesterov" momentum, or "lars" (trust 0.001, not on the bias).
    learning_rate: for 256 examples a batch.
    batch_size: examples a step; the whole training split where that is smaller.
    epochs: passes over the training features, each in a new order; the last partial batch is left out.
    warmup_epochs: of them with a linearly rising learning rate; fewer than epochs.
    decay: "cosine" to 0, or "step": a tenth from 60 % and a hundredth from 80 % of the epochs on.
    momentum: decay of the sum of gradients.
    weight_decay: L2 penalty, on the kernel only.
    normalize: "batch" puts a BatchNorm without affine (eps 1e-6, running average 0.1) before the classifier.
    kernel_std: standard deviation of the initial kernel; the bias starts at 0.
    seed: of kernel and order.

  LARS moves the kernel by about learning rate * 0.001 of its length a step: on a small split, where a batch is the
  whole split, the papers' epochs are too few steps to converge. `LinearProbe` has no such trap.

  Differs from the reference: the papers crop and flip the images anew each epoch; here every epoch sees the same
    features, so compare such numbers among themselves, not with published ones.
  """

  optimizer: Literal["sgd", "nesterov", "lars"] = "lars"
  learning_rate: float = 0.1
  batch_size: int = 16384
  epochs: int = 90
  warmup_epochs: int = 10
  decay: Literal["cosine", "step"] = "cosine"
  momentum: float = 0.9
  weight_decay: float = 0.0
  normalize: Literal["batch", "none"] = "batch"
  kernel_std: float = 0.01
  seed: int = 0

  def __call__(self, features: Features) -> dict[str, float]:
    """Returns {"sgd_probe": accuracy on the test split}."""
    f = features.labelled("sgd_probe")
    classifier, mean, var = _train(f.train_x, f.train_y, probe=self, num_classes=f.num_classes)
    predicted = classifier.logits(_batch_norm(f.test_x, mean, var)).argmax(-1)
    return {"sgd_probe": f.accuracy(np.asarray(predicted))}

  def schedule(self, steps_per_epoch: int) -> Schedule:
    """Returns step -> learning rate."""
    peak = self.learning_rate * self.batch_size / 256
    total, warmup = self.epochs * steps_per_epoch, self.warmup_epochs * steps_per_epoch
    if self.decay == "cosine":
      return schedules.cosine(peak=peak, total_steps=total, warmup_steps=warmup)
    rise = (Phase(name="warmup", curve=lambda n: peak * n / warmup, steps=warmup),) if warmup else ()
    first, second = int(0.6 * total) - warmup, int(0.8 * total) - int(0.6 * total)
    return Schedule((*rise, _hold(peak, first), _hold(peak / 10, second), _hold(peak / 100)))

  def transformation(self, steps_per_epoch: int) -> Transform:
    """Returns the optimiser; the learning rate is outside the momentum, as in PyTorch."""
    common = {"momentum": self.momentum, "weight_decay": self.weight_decay}
    rate = self.schedule(steps_per_epoch)
    if self.optimizer == "lars":
      return optim.lars(learning_rate=rate, **common).transform
    acceleration = "nesterov" if self.optimizer == "nesterov" else "none"
    return optim.sgd(learning_rate=rate, acceleration=acceleration, **common).transform


def mae(*, batch_size: int = 16384, epochs: int = 90) -> SGDProbe:
  """Returns MAE's protocol: BatchNorm, LARS 0.1 per 256, warm-up of 10 epochs, cosine; ViT-L and H: 50 epochs.

  Source: He et al., "Masked Autoencoders Are Scalable Vision Learners", 2021, arXiv:2111.06377, table 10.
  """
  return SGDProbe(batch_size=batch_size, epochs=epochs)


def simclr(*, batch_size: int = 512, epochs: int = 100) -> SGDProbe:
  """Returns SimCLR's protocol for CIFAR-10: Nesterov momentum, 0.1 per 256, cosine, no warm-up, kernel from 0.

  Source: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", 2020,
    arXiv:2002.05709, appendix B.
  """
  return SGDProbe("nesterov", 0.1, batch_size, epochs, warmup_epochs=0, normalize="none", kernel_std=0.0)


def moco(*, batch_size: int = 256, epochs: int = 100) -> SGDProbe:
  """Returns MoCo's protocol: momentum SGD 30 per 256, a tenth at 60 % and at 80 % of the epochs.

  Source: He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", 2019, arXiv:1911.05722.
  """
  return SGDProbe("sgd", 30.0, batch_size, epochs, warmup_epochs=0, decay="step", normalize="none")


def _hold(value: float, steps: float = math.inf) -> Phase:
  return Phase(name="constant", curve=lambda _: jnp.float32(value), steps=steps)


def _batch_norm(x: Array, mean: Array, var: Array) -> Array:
  return (x - mean) * jax.lax.rsqrt(var + 1e-6)


@functools.partial(jax.jit, static_argnames=("probe", "num_classes"))
def _train(x: Array, y: Array, *, probe: SGDProbe, num_classes: int) -> tuple[Linear, Array, Array]:
  """Returns the classifier and the running mean and variance f32[D] that stand before it."""
  probe = dataclasses.replace(probe, batch_size=min(probe.batch_size, len(x)))
  steps_per_epoch = len(x) // probe.batch_size
  optimizer = probe.transformation(steps_per_epoch)
  init_key, order_key = jax.random.split(jax.random.key(probe.seed))
  kernel = probe.kernel_std * jax.random.normal(init_key, (x.shape[1], num_classes))
  params = Linear(kernel, jnp.zeros(num_classes))

  def step(carry: tuple, rows: Array) -> tuple:
    params, state, mean, var, count = carry
    batch, unbiased = x[rows], len(rows) / max(len(rows) - 1, 1)
    if probe.normalize == "batch":
      batch_mean, batch_var = batch.mean(0), batch.var(0)
      batch = _batch_norm(batch, batch_mean, batch_var)
      mean, var = 0.9 * mean + 0.1 * batch_mean, 0.9 * var + 0.1 * unbiased * batch_var
    grads = jax.grad(_cross_entropy)(params, batch, y[rows])
    updates, state = optimizer.update(grads, state, params, step=count)
    return (optax.apply_updates(params, updates), state, mean, var, count + 1), None

  def epoch(carry: tuple, key: Array) -> tuple:
    order = jax.random.permutation(key, len(x))[: steps_per_epoch * probe.batch_size]
    return jax.lax.scan(step, carry, order.reshape(steps_per_epoch, probe.batch_size))

  still = (jnp.zeros(x.shape[1]), jnp.ones(x.shape[1]), jnp.int32(0))
  carry, _ = jax.lax.scan(epoch, (params, optimizer.init(params), *still), jax.random.split(order_key, probe.epochs))
  return carry[0], carry[2], carry[3]


def _cross_entropy(params: Linear, x: Array, y: Array) -> Array:
  return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(params.logits(x), y))
