"""The state of a run: made abstractly, laid on the mesh, initialised in one program."""

from collections.abc import Callable

import jax
import optax
from jax.sharding import Mesh

from ssljax import rng, sharding
from ssljax.types import Array, Batch, Objective, PyTree, TrainState


def initialiser(
  objective: Objective, transform: optax.GradientTransformation, batch: Batch
) -> Callable[[Array], TrainState]:
  """Returns the function seed -> TrainState; `batch` is abstract (shapes and dtypes after augmentation)."""

  def init(seed: Array) -> TrainState:
    key = jax.random.key(seed)
    params, objective_state = objective.init(rng.use_key(key, rng.INIT), batch)
    step = jax.numpy.zeros((), jax.numpy.int32)
    return TrainState(step, params, transform.init(params), objective_state, key)

  return init


def shardings(mesh: Mesh, state: PyTree, rules: sharding.Rules, *, fsdp_min_size: int = 2**14) -> PyTree:
  """Returns ShapeDtypeStructs of the abstract state with a sharding each: what restore and out_shardings want."""
  placed = sharding.state_sharding(mesh, state, rules, fsdp_min_size=fsdp_min_size)
  return jax.tree.map(lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), state, placed)


def create(init: Callable[[Array], TrainState], like: PyTree, seed: int) -> TrainState:
  """Returns the initial state, already laid out like `like`."""
  return jax.jit(init, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, like))(jax.numpy.uint32(seed))
