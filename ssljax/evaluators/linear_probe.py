"""A linear classifier on frozen features, solved to convergence: no learning rate, no epochs."""

import dataclasses
import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ssljax.evaluators.features import Features
from ssljax.types import Array


class Linear(NamedTuple):
  """A linear classifier: logits = x @ kernel + bias.

  Attributes:
    kernel: f32[D,C].
    bias: f32[C].
  """

  kernel: Array
  bias: Array

  def logits(self, x: Array) -> Array:
    """Returns f32[N,C] for x[N,D], in full float32 on every device."""
    return jnp.matmul(x, self.kernel, precision="highest") + self.bias


def standardize(train_x: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
  """Returns all arrays with the mean 0 and standard deviation 1 that `train_x` gets per dimension; constants are 0."""
  mean, std = train_x.mean(0, dtype=np.float64), train_x.std(0, dtype=np.float64)
  scale = np.where(std > 1e-6 * np.maximum(np.abs(mean), 1e-6), 1 / np.maximum(std, 1e-30), 0)
  return [((x - mean) * scale).astype(np.float32) for x in (train_x, *others)]


def objective(params: Linear, x: Array, y: Array, weight: Array, l2: Array) -> Array:
  """Returns sum_i w_i CE(logits_i, y_i) / sum_i w_i + l2/2 ||kernel||^2, f32[], in nats; the bias is free.

  scikit-learn's `LogisticRegression(C)` minimises the same for l2 = 1 / (C N) and weights of 1.
  """
  terms = optax.softmax_cross_entropy_with_integer_labels(params.logits(x), y)
  return jnp.sum(weight * terms) / jnp.sum(weight) + l2 / 2 * jnp.sum(params.kernel**2)


@jax.jit
def rotate(train_x: Array, test_x: Array) -> tuple[Array, Array]:
  """Returns both arrays [N,D] and [M,D] in the principal axes of `train_x`.

  A rotation changes no minimum of `objective` and no prediction, but makes the curvature nearly diagonal.
  """
  _, axes = jnp.linalg.eigh(jnp.matmul(train_x.T, train_x, precision="highest") / len(train_x))
  return jnp.matmul(train_x, axes, precision="highest"), jnp.matmul(test_x, axes, precision="highest")


@jax.jit
def logistic(
  x: Array, y: Array, weight: Array, start: Linear, *, l2: float, iterations: int, tolerance: float
) -> tuple[Linear, Array]:
  """Returns the minimiser of `objective` by L-BFGS from `start`, and the norm of the gradient there.

  The search runs over u = kernel / scale, scale_d = (mean x_d^2 / C + l2)^-1/2, the curvature at equal class
  probabilities. On rotated features (see `rotate`) that takes tens of iterations where correlated ones took thousands.

  Args:
    x: f32[N,D], standardised, best rotated.
    y: int32[N].
    weight: f32[N]; 0 leaves a row out.
    start: where the search begins.
    l2: weight of the penalty.
    iterations: at most so many.
    tolerance: stops below this norm of the gradient over u.

  Source: Liu and Nocedal, "On the limited memory BFGS method for large scale optimization", 1989; the curvature:
    Böhning, "Multinomial logistic regression algorithm", 1992.
  """
  squares = jnp.sum(weight[:, None] * x**2, 0) / jnp.sum(weight)
  scale = Linear(jax.lax.rsqrt(squares / len(start.bias) + l2)[:, None], jnp.sqrt(1.0 * len(start.bias)))
  loss = lambda u: objective(jax.tree.map(jnp.multiply, u, scale), x, y, weight, l2)
  solver = optax.lbfgs()
  value_and_grad = optax.value_and_grad_from_state(loss)

  def iterate(carry: tuple) -> tuple:
    u, state, _ = carry
    value, grad = value_and_grad(u, state=state)
    updates, state = solver.update(grad, state, u, value=value, grad=grad, value_fn=loss)
    return optax.apply_updates(u, updates), state, optax.tree.norm(optax.tree.get(state, "grad"))

  def unsolved(carry: tuple) -> Array:
    _, state, norm = carry
    return (optax.tree.get(state, "count") < iterations) & (norm > tolerance)

  begin = jax.tree.map(jnp.divide, start, scale)
  u, _, _ = jax.lax.while_loop(unsolved, iterate, (begin, solver.init(begin), jnp.inf))
  classifier = jax.tree.map(jnp.multiply, u, scale)
  return classifier, optax.tree.norm(jax.grad(objective)(classifier, x, y, weight, l2))


@functools.partial(jax.jit, static_argnames="num_classes")
def ridge(x: Array, y: Array, weight: Array, *, l2: float, num_classes: int) -> Linear:
  """Returns the least-squares classifier on one-hot targets t, in closed form.

  kernel = (X'WX/n + l2 I)^-1 X'W(T - mean T)/n with X centred, W the weights and n their sum; the bias is free.

  Args:
    x: f32[N,D].
    y: int32[N].
    weight: f32[N]; 0 leaves a row out.
    l2: weight of the penalty; above 0 where D > n.
    num_classes: number of classes C.

  Source: Hoerl and Kennard, "Ridge regression: biased estimation for nonorthogonal problems", 1970.
  """
  share = (weight / jnp.sum(weight))[:, None]
  targets = jax.nn.one_hot(y, num_classes)
  mean_x, mean_t = jnp.sum(share * x, 0), jnp.sum(share * targets, 0)
  left = (share * (x - mean_x)).T
  gram = jnp.matmul(left, x - mean_x, precision="highest")
  moment = jnp.matmul(left, targets - mean_t, precision="highest")
  kernel = jax.scipy.linalg.solve(gram + l2 * jnp.eye(x.shape[1]), moment, assume_a="pos")
  return Linear(kernel, mean_t - jnp.matmul(mean_x, kernel, precision="highest"))


@dataclasses.dataclass(frozen=True)
class LinearProbe:
  """Accuracy of a linear classifier on frozen, standardised features, as `linear_probe`, share 0..1.

  The penalty is chosen on a held-out tenth of the training split (by cross-entropy; by error rate for ridge); then
  the classifier is fitted to the whole training split. The test split is read once, at the end.

  Attributes:
    method: "lbfgs" is multinomial logistic regression; "ridge" is least squares on one-hot targets, much faster.
    l2: penalties to choose from.
    iterations: of L-BFGS at most, for each penalty.
    tolerance: L-BFGS stops below this norm of the gradient.
    seed: of the choice of the held-out rows.
  """

  method: Literal["lbfgs", "ridge"] = "lbfgs"
  l2: tuple[float, ...] = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
  iterations: int = 300
  tolerance: float = 1e-4
  seed: int = 0

  def __call__(self, features: Features) -> dict[str, float]:
    """Returns linear_probe (accuracy), linear_probe_l2 and, for L-BFGS, linear_probe_gradient_norm."""
    f = features.labelled("linear_probe")
    train_x, test_x = rotate(*standardize(f.train_x, f.test_x))
    start = Linear(jnp.zeros((train_x.shape[1], f.num_classes)), jnp.zeros(f.num_classes))
    l2 = self._choose(train_x, f.train_y, start)
    classifier, norm = self._fit(train_x, f.train_y, np.ones(len(train_x), np.float32), l2, start)
    result = {"linear_probe": f.accuracy(classifier.logits(test_x).argmax(-1)), "linear_probe_l2": l2}
    return result | ({"linear_probe_gradient_norm": float(norm)} if self.method == "lbfgs" else {})

  def _choose(self, x: Array, y: np.ndarray, start: Linear) -> float:
    """Returns the penalty with the least loss on a held-out tenth.

    From the strongest down, each fit beginning where the last one ended; L-BFGS stops where the loss rises.
    """
    if len(self.l2) == 1 or len(x) < 2:
      return max(self.l2)
    held_out = np.random.default_rng(self.seed).permutation(len(x)) < max(1, len(x) // 10)
    losses, classifier = {}, start
    for l2 in sorted(self.l2, reverse=True):
      classifier, _ = self._fit(x, y, (~held_out).astype(np.float32), l2, classifier)
      losses[l2] = self._loss(classifier, x[held_out], y[held_out])
      if self.method == "lbfgs" and not losses[l2] <= min(losses.values()):
        break
    return min(losses, key=losses.get)

  def _loss(self, classifier: Linear, x: Array, y: np.ndarray) -> float:
    """Returns the cross-entropy (nats); for least squares, whose outputs are no probabilities, the error rate."""
    logits = classifier.logits(x)
    if self.method == "ridge":
      return float(jnp.mean(logits.argmax(-1) != y))
    return float(jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y)))

  def _fit(self, x: Array, y: np.ndarray, weight: np.ndarray, l2: float, start: Linear) -> tuple[Linear, Array]:
    if self.method == "ridge":
      return ridge(x, y, weight, l2=l2, num_classes=len(start.bias)), jnp.zeros(())
    return logistic(x, y, weight, start, l2=l2, iterations=self.iterations, tolerance=self.tolerance)
