"""Pieces of optimisers that optax lacks: norms of single parameters in a stack of layers, rules by path, the step.

Layers are stored stacked: a leaf under `blocks/` has the layer on axis 0. To an optimiser it is that many
parameters, so a stacked bias f32[L,D] is one-dimensional and each layer has a norm of its own.

Transformations that follow a schedule take the step as an extra argument,
`transform.update(gradients, state, params, step=step)`. They hold no count of their own, which would fall behind the
run's at every update that is skipped.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ssljax import tree
from ssljax.errors import UserError
from ssljax.schedules import Schedule
from ssljax.types import Array, Params, PyTree

Transform = optax.GradientTransformationExtraArgs
# Parameters in front of the first block: patch_embed, pos_embed, cls_token, token_embedder, norm_pre.
EMBEDDINGS = "embed|token|norm_pre"


def is_stacked(name: str) -> bool:
  """Returns whether axis 0 of the parameter called `name` counts layers."""
  return "blocks" in name.split("/")[:-1]


def layer_names(name: str, leaf: Array) -> list[tuple[str, ...]]:
  """Returns what each layer of a stack is called: by its own name "blocks/3/..." and by that of all; else the name."""
  if not is_stacked(name) or not leaf.ndim:
    return [(name,)]
  before, behind = re.split(r"(?<![^/])blocks/", name, maxsplit=1)
  return [(f"{before}blocks/{layer}/{behind}", name) for layer in range(leaf.shape[0])]


def ndim(name: str, leaf: Array) -> int:
  """Returns the number of axes of one parameter, the axis of layers not counted."""
  return leaf.ndim - is_stacked(name)


def each_parameter(function: Callable[[Array, Array], Array]) -> optax.GradientTransformation:
  """Returns the transformation update -> function(update, parameter), layer by layer in a stack."""

  def one(name: str, update: Array, param: Array) -> Array:
    return (jax.vmap(function) if is_stacked(name) else function)(update, param)

  return optax.stateless(lambda updates, params: tree.map_named(one, updates, params))


def clip_by_parameter_norm(limit: float) -> optax.GradientTransformation:
  """Returns g * min(1, limit / (||g|| + 1e-6)) for each parameter (DINO); optax clips by the norm of all of them."""
  return each_parameter(lambda g, p: g * jnp.minimum(1.0, limit / (jnp.linalg.norm(g.ravel()) + 1e-6)))


def scale_by_trust_ratio(trust: float) -> optax.GradientTransformation:
  """Returns g * trust * ||p|| / ||g|| for parameters of two or more axes; g itself where a norm is 0."""

  def one(g: Array, p: Array) -> Array:
    if p.ndim < 2:
      return g
    of_param, of_update = jnp.linalg.norm(p.ravel()), jnp.linalg.norm(g.ravel())
    usable = (of_param > 0) & (of_update > 0)
    return g * jnp.where(usable, trust * of_param / jnp.where(usable, of_update, 1.0), 1.0)

  return each_parameter(one)


def rms(x: Array) -> Array:
  """Returns sqrt(mean(x^2)): f32[]."""
  return jnp.sqrt(jnp.mean(jnp.square(x)))


def clip_by_rms(limit: float) -> optax.GradientTransformation:
  """Returns u / max(1, RMS(u) / limit) for each parameter."""
  return each_parameter(lambda u, p: u / jnp.maximum(1.0, rms(u) / limit))


def scale_by_parameter_rms(floor: float) -> optax.GradientTransformation:
  """Returns u * max(RMS(p), floor) for each parameter."""
  return each_parameter(lambda u, p: u * jnp.maximum(rms(p), floor))


def at_step(function: Callable[[PyTree, Params, Array], PyTree]) -> Transform:
  """Returns the stateless transformation updates -> function(updates, params, step)."""

  def update(updates: PyTree, state: PyTree, params: Params = None, *, step: Array, **_: Any) -> tuple[PyTree, PyTree]:
    return function(updates, params, step), state

  return Transform(lambda params: optax.EmptyState(), update)


def scale_by_schedule(schedule: Schedule, rules: Sequence[tuple[str, Schedule]] = ()) -> Transform:
  """Returns u * schedule(step); of the rules (regex, schedule) the first found in the parameter's path goes before."""
  one = lambda name, u, step: u * tree.first_match(rules, name, schedule)(step)
  return at_step(lambda updates, params, step: tree.map_named(lambda name, u: one(name, u, step), updates))


def add_decay(schedule: Schedule, no_decay: Sequence[str]) -> Transform:
  """Returns u + schedule(step) * p for parameters of two or more axes whose path no regex of `no_decay` finds."""

  def one(name: str, update: Array, param: Array, rate: Array) -> Array:
    decayed = ndim(name, param) > 1 and not any(re.search(pattern, name) for pattern in no_decay)
    return update + rate * param if decayed else update

  def function(updates: PyTree, params: Params, step: Array) -> PyTree:
    rate = schedule(step)
    return tree.map_named(lambda name, u, p: one(name, u, p, rate), updates, params)

  return at_step(function)


def scale_by_path(rules: Sequence[tuple[str, float]]) -> optax.GradientTransformation:
  """Returns u * factor of the first (regex, factor) rule found in the parameter's path, else u."""
  one = lambda name, u: u * tree.first_match(rules, name, 1.0)
  return optax.stateless(lambda updates, params: tree.map_named(one, updates))


def hold(rules: Sequence[tuple[str, int]]) -> Transform:
  """Returns u, and 0 before the step of the first (regex, step) rule found in the parameter's path.

  The moments of what is held see its gradients all the while, so its first step is as long as any other. (DINO and
  SwAV drop the gradients instead, DINOv2 does as here.)
  """

  def function(updates: PyTree, params: Params, step: Array) -> PyTree:
    one = lambda name, u: u * (step >= until) if (until := tree.first_match(rules, name, 0)) else u
    return tree.map_named(one, updates)

  return at_step(function)


def scale_by_layer(decay: float) -> optax.GradientTransformation:
  """Returns u * decay^(depth + 1 - id): id is 0 for embeddings, i + 1 for block i, depth + 1 for the rest.

  Only encoders (a path with "encoder" in front of "blocks") are scaled, each by its own depth.

  Raises:
    UserError: (in init) no encoder holds stacked blocks.

  Source: Clark et al., "ELECTRA", 2020, arXiv 2003.10555; Bao et al., "BEiT", 2022, arXiv 2106.08254.
  """

  def init(params: Params) -> optax.EmptyState:
    if not encoder_depths(params):
      raise UserError("optimizer.layer_decay: no parameter is under encoder/blocks/, expected a stack of layers there")
    return optax.EmptyState()

  def update(updates: PyTree, state: PyTree, params: Params = None) -> tuple[PyTree, PyTree]:
    depths = encoder_depths(params)
    return tree.map_named(lambda name, u: u * layer_factor(name, u, depths, decay), updates), state

  return optax.GradientTransformation(init, update)


def encoder_depths(params: Params) -> dict[str, int]:
  """Returns {path of an encoder, with its slash: number of blocks}."""
  stacks = [(name.split("/"), leaf) for name, leaf in tree.named_leaves(params) if is_stacked(name)]
  prefixes = [("/".join([*parts[: parts.index("blocks")], ""]), leaf.shape[0]) for parts, leaf in stacks]
  return {prefix: depth for prefix, depth in prefixes if "encoder" in prefix}


def layer_factor(name: str, leaf: Array, depths: dict[str, int], decay: float) -> Array | float:
  """Returns decay^(depth + 1 - id) of a leaf: a number, or f32[L,1,...] for a stack; see `scale_by_layer`."""
  found = next((prefix for prefix in depths if name.startswith(prefix)), None)
  if found is None:
    return 1.0
  if is_stacked(name):
    powers = decay ** jnp.arange(depths[found], 0, -1, dtype=jnp.float32)
    return powers.reshape(-1, *(1,) * (leaf.ndim - 1))
  return decay ** (depths[found] + 1) if re.search(EMBEDDINGS, name.removeprefix(found)) else 1.0


def check_rules(key: str, patterns: Sequence[str]) -> optax.GradientTransformation:
  """Returns the identity, whose init refuses a regex of the config key `key` that finds no parameter.

  Raises:
    UserError: (in init) a regex that is malformed, or that finds nothing.
  """

  def init(params: Params) -> optax.EmptyState:
    names = [name for name, _ in tree.named_leaves(params)]
    for pattern in patterns:
      try:
        found = any(re.search(pattern, name) for name in names)
      except re.error as error:
        raise UserError(f"{key}: {pattern!r} is no regular expression ({error})") from error
      if not found:
        raise UserError(f"{key}: {pattern!r} is found in no parameter's path, expected one such as {names[0]}")
    return optax.EmptyState()

  return optax.GradientTransformation(init, lambda updates, state, params=None: (updates, state))


def freeze(transform: Transform, rules: Sequence[tuple[str, str]]) -> Transform:
  """Returns the transformation with neither gradient nor update for parameters that `rules` freeze.

  Args:
    transform: the optimiser.
    rules: (regex, action) over "params/PATH" and, of a stack, also over each layer's own "params/.../blocks/3/...";
      the first match counts; the action "freeze" freezes.
  """

  def held(name: str, leaf: Array) -> Array:
    frozen = _frozen_layers(rules, name, leaf)
    if all(frozen):
      return jnp.zeros_like(leaf)
    return leaf * (1 - jnp.asarray(frozen)).reshape(-1, *(1,) * (leaf.ndim - 1)) if any(frozen) else leaf

  def update(gradients: PyTree, state: PyTree, params: Params | None = None, **extra: Any) -> tuple[PyTree, PyTree]:
    updates, state = transform.update(tree.map_named(held, gradients), state, params, **extra)
    return tree.map_named(held, updates), state

  return optax.GradientTransformationExtraArgs(transform.init, update)


def without_gradient(params: Params, rules: Sequence[tuple[str, str]]) -> Params:
  """Returns the parameters, of which those that `rules` freeze (see `freeze`) have no gradient.

  So a backward pass that only they would need, that of a locked tower, is not computed. A stack of layers of which
  some are frozen is left as it is: it is one loop.
  """
  fixed = lambda name, leaf: jax.lax.stop_gradient(leaf) if all(_frozen_layers(rules, name, leaf)) else leaf
  return tree.map_named(fixed, params)


def _frozen_layers(rules: Sequence[tuple[str, str]], name: str, leaf: Array) -> list[bool]:
  """Returns whether the parameter is frozen; of a stack, whether each layer's is."""
  return [tree.first_match_of(rules, names) == "freeze" for names in layer_names(f"params/{name}", leaf)]


class EmaState(NamedTuple):
  """The wrapped optimiser's state, and the average of the parameters (float32)."""

  inner: PyTree
  average: Params


def with_ema(transform: optax.GradientTransformation, *, decay: float | Schedule) -> Transform:
  """Returns `transform` that also keeps average <- decay * average + (1 - decay) * new parameters, in float32.

  The average starts at the initial parameters. It sees what the optimiser did, not what an objective's
  `post_update` did afterwards.
  """
  inner, schedule = optax.with_extra_args_support(transform), Schedule.of(decay)

  def init(params: Params) -> EmaState:
    return EmaState(inner.init(params), jax.tree.map(lambda p: jnp.array(p, jnp.float32), params))

  def update(updates: PyTree, state: EmaState, params: Params = None, *, step: Array, **extra: Any):
    updates, after = inner.update(updates, state.inner, params, step=step, **extra)
    rate = 1 - schedule(step)
    moved = optax.apply_updates(params, updates)
    average = jax.tree.map(lambda a, p: a + rate * (p - a), state.average, moved)
    return updates, EmaState(after, average)

  return Transform(init, update)


def ema_params(opt_state: PyTree) -> Params | None:
  """Returns the averaged parameters held in an optimiser's state, or None where there are none."""
  leaves = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, EmaState))
  return next((leaf.average for leaf in leaves if isinstance(leaf, EmaState)), None)
