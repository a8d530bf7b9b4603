"""Groups of a batch that batch normalisation keeps apart, as if each lay on a device of its own."""

import dataclasses
from typing import Literal

import jax.numpy as jnp
import numpy as np

from ssljax.errors import UserError
from ssljax.types import Array


@dataclasses.dataclass(frozen=True)
class Groups:
  """`count` groups of equal size of the N examples of a batch; one group is the whole batch.

  Attributes:
    count: their number.
    order: who belongs together: neighbours ("blocks", example i is in group i // (N / count)), or each `count`-th
      ("strides", i % count). Two examples that share a block share no stride, as long as a block has at most `count`.

  Nothing moves: a group's statistics are a sum over the devices of as many numbers as there are channels.
  """

  count: int = 1
  order: Literal["blocks", "strides"] = "blocks"

  def __post_init__(self):
    if self.count < 1:
      raise UserError(f"groups: {self.count}, expected at least 1")

  def members(self, examples: int) -> np.ndarray:
    """Returns who is in which group, bool[count,examples].

    Raises:
      UserError: the groups cannot be of equal size.
    """
    if examples % self.count:
      raise UserError(f"groups: {self.count} groups of a batch of {examples}, expected a number that divides it")
    place = np.arange(examples)
    group = place // (examples // self.count) if self.order == "blocks" else place % self.count
    return group == np.arange(self.count)[:, None]


def group_moments(x: Array, groups: Groups) -> tuple[Array, Array]:
  """Returns mean and (biased) variance f32[count,C] of each group of x[N,...,C], over its examples and places."""
  places = tuple(range(1, x.ndim - 1))
  x = x.astype(jnp.float32)
  each = jnp.stack([jnp.mean(x, places), jnp.mean(x * x, places)])
  members = groups.members(len(x))
  mean, square = jnp.einsum("gn,knc->kgc", members / members.sum(1, keepdims=True), each, precision="highest")
  return mean, jnp.maximum(square - mean * mean, 0.0)


def to_examples(values: Array, groups: Groups, like: Array) -> Array:
  """Returns values f32[count,C] of the groups as those of their examples, f32[N,1,...,C], for `like` [N,...,C]."""
  members = groups.members(len(like)).astype(np.float32)
  found = jnp.einsum("gn,gc->nc", members, values, precision="highest")
  return found.reshape(len(like), *(1,) * (like.ndim - 2), -1)
