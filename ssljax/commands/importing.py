"""`ssljax import`: another library's weights as a run at step 0, to be gone on from."""

import argparse
import pathlib
from typing import Any

from ssljax import runtime
from ssljax.commands import workdir as workdirs
from ssljax.commands.configs import load_config
from ssljax.commands.train import say
from ssljax.errors import UserError, nearest


def run(options: argparse.Namespace) -> int:
  """Returns the exit code of `ssljax import`."""
  from ssljax.export import registry

  config = {**load_config(options.config, options.overrides), "evaluation": None}
  place = pathlib.Path(options.origin)
  if not place.exists():
    raise UserError(f"--from: no file or folder {place}")
  if options.format not in registry.FORMATS:
    raise UserError(f"--format: nothing is called {nearest(options.format, registry.FORMATS)}")
  folder = workdirs.prepare(options.workdir)
  if (folder / "config.json").exists():
    raise UserError(f"--workdir: {folder} holds a run already, expected a new folder")
  runtime.start(cpu_devices=options.cpu_devices)
  return _import(config, place, folder, options)


def _import(config: dict[str, Any], place: pathlib.Path, folder: pathlib.Path, options: argparse.Namespace) -> int:
  import jax

  from ssljax.export import incoming, inputs, parts, registry
  from ssljax.export.peer import EXAMPLES
  from ssljax.training import run as runs
  from ssljax.training import state as states

  assembled = runs.assemble(config)
  modules = parts.modules_of(assembled.objective)
  peer = registry.for_import(modules, format=options.format, place=place, name=options.kind)
  peer.check_installed()
  shapes = parts.shapes(assembled.objective, assembled.like)
  with jax.set_mesh(assembled.mesh):
    fresh = states.create(assembled.init, assembled.like, assembled.job.seed)
    own, _ = parts.take(assembled.objective, fresh, "student")
    came = incoming.read(place, peer, modules, shapes, inputs.real(assembled, EXAMPLES), fresh=own)
    state = parts.put(assembled.objective, fresh, came.arrays)
    state = state.replace(opt_state=_fresh_optimizer(assembled, state))
    _save(assembled, state, folder)
  about = {"from": str(place), "format": peer.format, "class": peer.name, "differences": came.comparison.differences}
  workdirs.write_json(folder / "import.json", about | {"left": came.left, "resized": came.resized})
  _tell(peer, came, folder)
  return 0


def _fresh_optimizer(run: Any, state: Any) -> Any:
  """Returns the optimiser's first state for the parameters that came in; a moving average begins with them."""
  import jax

  places = jax.tree.map(lambda leaf: leaf.sharding, run.like.opt_state)
  return jax.jit(run.optimizer.transform.init, out_shardings=places)(state.params)


def _save(run: Any, state: Any, folder: pathlib.Path) -> None:
  """Writes checkpoint 0, then config.json: with it the folder is a run."""
  import contextlib

  from ssljax.checkpoint import Checkpoints

  with contextlib.closing(Checkpoints(folder / "checkpoints")) as store:
    store.save(0, state, config=run.config)
  workdirs.write_json(folder / "config.json", run.config)


def _tell(peer: Any, came: Any, folder: pathlib.Path) -> None:
  say(f"{peer.format} {peer.name}: {len(came.arrays)} arrays")
  for name, size in came.comparison.differences.items():
    say(f"largest difference of {name}: {size:.1e}")
  for line in filter(None, (came.resized, f"left behind: {', '.join(came.left)}" if came.left else "")):
    say(line)
  say(f"ssljax train --config=... --from={folder} --workdir=... goes on from here")
