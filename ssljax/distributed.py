"""Several processes as one run: joining, reading arrays that lie on other machines, stopping at one step, leaving.

The one place that knows `jax.distributed`. With one process all of it is nothing.
"""

import contextlib
import os
import platform
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np

from ssljax import roll_call
from ssljax.errors import UserError
from ssljax.types import Array

PACKAGES = ("ssljax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
_EXPLAIN_SECONDS = 5.0
LOST = 1  # exit code of a process whose run lost another one


class Place(NamedTuple):
  """Where a process stands: the coordinator's "host:port", how many processes, which one, its devices (None: all)."""

  coordinator: str
  count: int
  index: int
  devices: list[int] | None = None


def versions() -> dict[str, str]:
  """Returns the version of Python and of each package that decides what is computed."""
  found = {"python": platform.python_version()}
  for package in PACKAGES:
    with contextlib.suppress(metadata.PackageNotFoundError):
      found[package] = metadata.version(package)
  return found


def place(coordinator: str | None, count: int | None, index: int | None, *, timeout: float) -> Place | None:
  """Returns where this process stands: as the flags say, else as SLURM, a TPU VM, Kubernetes or Open MPI say.

  None: it is alone. jax reads the environments.

  Raises:
    UserError: some of the flags without the others.
  """
  given = {"--coordinator": coordinator, "--num-processes": count, "--process-id": index}
  missing = [flag for flag, value in given.items() if value is None]
  if not missing:
    return Place(str(coordinator), int(count or 0), int(index or 0))
  if len(missing) < len(given):
    raise UserError(f"{missing[0]}: missing, expected with {', '.join(f for f in given if f not in missing)}")
  from jax._src import clusters  # jax has no public way to ask without joining

  ask = clusters.ClusterEnv.auto_detect_unset_distributed_params
  address = os.environ.get("JAX_COORDINATOR_ADDRESS")  # where the first node's name does not resolve
  address, count, index, devices = ask(address, None, None, None, None, int(timeout))
  if address is None or count is None or index is None or count < 2:
    return None
  return Place(address, count, index, None if devices is None else list(devices))


@contextlib.contextmanager
def joined(
  coordinator: str | None,
  count: int | None,
  index: int | None,
  *,
  same: Mapping[str, Any],
  card: Mapping[str, Any] | None = None,
  join_timeout: float = 300.0,
  lost_timeout: float = 60.0,
) -> Iterator[list[roll_call.Card]]:
  """Joins the run's processes and leaves them at the end; nothing where the process is alone.

  A process that is lost meanwhile ends this one with a line that names it: what is computed together cannot go on, and
  the same command resumes from the last checkpoint.

  Gives the processes' cards, in full in process 0; none where it is alone.

  Args:
    coordinator: "host:port" of process 0; None: see `place`.
    count: processes.
    index: which of them this is.
    same: what all must have in common, by name.
    card: what else is told of this process.
    join_timeout: seconds to wait for all at the start.
    lost_timeout: seconds without a sign of life after which a process is lost.

  Raises:
    UserError: some did not come, or differ in `same`.
  """
  here = place(coordinator, count, index, timeout=join_timeout)
  if here is None:
    yield []
    return
  name = socket.gethostname()
  told = {**(card or {}), "host": name, "same": dict(same)}
  members = roll_call.call(here.coordinator, count=here.count, index=here.index, card=told, timeout=join_timeout)
  import jax

  jax.distributed.initialize(
    here.coordinator,
    here.count,
    here.index,
    local_device_ids=here.devices,
    initialization_timeout=int(join_timeout),
    # The roll call notices first and says who it was; jax's own check ends the process without.
    heartbeat_timeout_seconds=int(4 * lost_timeout),
  )
  members.watch(timeout=lost_timeout, lost=_end)
  try:
    yield members.cards
  except BaseException as error:
    _explain(error)
    reason = " ".join(str(error).split())[:500] or type(error).__name__
    members.leave(f"process {here.index} ({name}) stopped: {reason}")
    raise
  _barrier("the end")
  members.leave()
  jax.distributed.shutdown()


def _end(who: str) -> None:
  print(f"error: {who}; the same command goes on from the last checkpoint", file=sys.stderr, flush=True)
  os._exit(LOST)  # the main thread may wait for ever in a collective operation


def _explain(error: BaseException) -> None:
  """Leaves the roll call time to say who is gone, and to end this process, where an operation over all failed."""
  import jax

  if isinstance(error, jax.errors.JaxRuntimeError):
    time.sleep(_EXPLAIN_SECONDS)


def _barrier(name: str) -> None:
  from jax.experimental import multihost_utils

  multihost_utils.sync_global_devices(name)


def barrier(name: str) -> None:
  """Waits until all processes are here; nothing for one process."""
  import jax

  if jax.process_count() > 1:
    _barrier(name)


def agreed(value: bool) -> bool:
  """Returns what process 0 gives; all processes must ask together."""
  import jax

  if jax.process_count() == 1:
    return value
  from jax.experimental import multihost_utils

  return bool(multihost_utils.broadcast_one_to_all(np.array(value)))


def is_main() -> bool:
  """Returns whether this process writes the run's files and prints its tables: process 0."""
  import jax

  return jax.process_index() == 0


def to_host(x: Array) -> np.ndarray:
  """Returns a global array whole, wherever its parts lie; all processes must ask together."""
  import jax

  if not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated:
    return np.asarray(x)
  from jax.experimental import multihost_utils

  return np.asarray(multihost_utils.process_allgather(x, tiled=True))


def preempted(step: int) -> bool:
  """Returns whether all processes are to stop after this step, because SIGTERM came to one of them; ask at each step.

  False for one process, whose signal is its own (`training.watch.stop_signal`).
  """
  import jax

  if jax.process_count() == 1:
    return False
  from jax.experimental import multihost_utils

  return multihost_utils.reached_preemption_sync_point(step)
