"""`ssljax plan`: does a config fit hardware that is not here, and what would a step cost there?"""

import argparse
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from ssljax import runtime
from ssljax.commands.configs import load_config
from ssljax.planning import topology as topologies


def run(options: argparse.Namespace) -> int:
  """Returns the exit code of `ssljax plan`: 0, whether it fits or not."""
  topology = topologies.parse(options.topology, slices=options.slices)
  config = _sliced(load_config(options.config, options.overrides), topology)
  os.environ.update(topology.environment)
  runtime.start(cpu_devices=topology.shape[0] if topology.kind == "cpu" else None)
  _forget_programs()
  from ssljax.planning import table

  plan = _Planner(config, topology).plan(search=options.fit)
  plan = {"config": options.config} | plan
  if options.json:
    print(json.dumps(plan))
  else:
    table.show(plan)
  return 0


def _sliced(config: dict[str, Any], topology: topologies.Topology) -> dict[str, Any]:
  """Returns the config with a copy of the state in each slice, unless it says something else."""
  mesh = dict(config.get("mesh") or {})
  return config if topology.slices == 1 else {**config, "mesh": {"slice": topology.slices} | mesh}


def _forget_programs() -> None:
  """Turns the cache of compiled programs off: programs for devices that are not here cannot be read back."""
  import jax

  jax.config.update("jax_enable_compilation_cache", False)


class _Planner:
  """One config on one topology."""

  def __init__(self, config: Mapping[str, Any], topology: topologies.Topology):
    self._config, self._topology = config, topology
    self._devices = topology.devices()

  def plan(self, *, search: bool) -> dict[str, Any]:
    """Returns the plan as JSON; `search` adds what else would fit."""
    from ssljax import sharding
    from ssljax.planning import variants

    run = self._assemble(self._config)
    estimate = self._estimate(run)
    plan = self._about(run) | _numbers(run, estimate, self._model_operations(run))
    if search:
      begin = (plan["remat"] or "none", max(1, plan["rows"]))
      remats = variants.REMATS if plan["remat"] else ("none",)
      plan |= self._fits(remats, {begin: estimate}, devices=sharding.batch_devices(run.mesh))
    return plan

  def _assemble(self, config: Mapping[str, Any]) -> Any:
    """Returns the run of a config on a stand-in for its data."""
    from ssljax.planning.stand_in import stand_in
    from ssljax.training import config as config_lib
    from ssljax.training.feed import Feed
    from ssljax.training.run import assemble

    job = config_lib.parse(config_lib.any_durations(config))
    data = job.data
    sections = {"text": data.text, "ict": data.ict, "captions": data.captions}
    stream = stand_in(batch_size=data.batch_size, image_size=data.image_size, num_tasks=len(job.stream), **sections)
    return assemble(
      config, devices=self._devices, feed=Feed((None,) * max(1, len(job.stream)), stream, stream.epoch_size)
    )

  def _estimate(self, run: Any) -> Any:
    import jax

    from ssljax.planning.estimate import compile_and_estimate
    from ssljax.training.programs import trace_step

    with jax.set_mesh(run.mesh):
      lowered = trace_step(run).lower()
    return compile_and_estimate(lowered, list(run.mesh.devices.flat), limit=self._host_memory())

  def _host_memory(self) -> int:
    """Returns the bytes a device of this CPU has: its share of the machine's."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // len(self._devices)

  def _model_operations(self, run: Any) -> int:
    """Returns the operations of the same method without recomputation, on no mesh."""
    from ssljax import build
    from ssljax.planning import estimate, variants

    section = variants.plain(run.config["objective"])
    objective = build.build(section, "objectives", where="objective")
    return estimate.model_operations(objective, run.like, run.batch)

  def _about(self, run: Any) -> dict[str, Any]:
    from ssljax import sharding
    from ssljax.planning import variants

    size = run.job.data.batch_size
    return {
      "topology": self._topology.name,
      "slices": self._topology.slices,
      "device": self._devices[0].device_kind,
      "num_chips": len(self._devices),
      "mesh": dict(run.mesh.shape),
      "batch_size": size,
      "rows": size // run.job.accumulate // sharding.batch_devices(run.mesh),
      "remat": variants.remat_of(run.config["objective"]),
      "data": f"a stand-in of the shapes of {run.job.data.source}; an epoch is {run.stream.epoch_size:,} examples",
    }

  def _fits(self, remats: tuple[str, ...], known: dict[tuple[str, int], Any], *, devices: int) -> dict[str, Any]:
    """Returns what fits; `known` are estimates by (remat, examples a device), the first where the search begins."""
    from ssljax.planning import fit, variants

    def estimate(remat: str, count: int) -> Any:
      if (remat, count) not in known:
        config = {**self._config, "objective": variants.with_remat(self._config["objective"], remat)}
        run = self._assemble(variants.with_rows(config, count, devices=devices))
        known[remat, count] = self._estimate(run)
      found = known[remat, count]
      print(f"fit: remat={remat}, {count} examples a chip: {_room(found)}", file=sys.stderr, flush=True)
      return found

    found = fit.search(estimate, remats, rows=next(iter(known))[1])
    best = fit.best(found)
    lines = [
      {
        "remat": one.remat,
        "rows": one.rows,
        "examples_per_second": one.rate * devices,
        "needed_bytes": one.estimate.needed,
      }
      for one in found
    ]
    size = best and best.rows * devices * self._config.get("accumulate", 1)
    return {"fit": lines, "best": best and f"remat={best.remat}, data.batch_size={size}"}


def _room(estimate: Any) -> str:
  """Returns "fits, 9.10 GiB of 15.75 GiB", for one who waits."""
  from ssljax.planning import table

  verdict = "fits" if estimate.fits else "does not fit"
  return f"{verdict}, {table.size(estimate.needed)} of {table.size(estimate.limit)}"


def _numbers(run: Any, estimate: Any, model: int) -> dict[str, Any]:
  """Returns the part of a plan that was measured; None where the compiler refused the step or the chip is unknown."""
  from ssljax.planning import collectives
  from ssljax.planning import estimate as estimates

  memory, products, roofline = estimate.memory, estimate.products, estimate.roofline
  seconds = roofline.seconds if roofline else None
  size, chips = run.job.data.batch_size, run.mesh.size
  peak = _peak(run)
  return {
    "fits": estimate.fits,
    "hbm_bytes": estimate.limit,
    "needed_bytes": estimate.needed,
    "argument_bytes": memory and memory.arguments,
    "temp_bytes": memory and memory.temporaries,
    "result_bytes": memory and memory.results,
    "code_bytes": memory and memory.code,
    "peak_bytes": memory and memory.peak,
    "state_bytes": estimates.state_bytes(run.like),
    "model_flops": model,
    "compiled_flops": products and products.operations,
    "flops_by_operands": products and products.work,
    "opaque_kernels": len(products.opaque) if products else 0,
    "moved_bytes": estimate.moved,
    "collectives": collectives.by_kind(estimate.collectives),
    "unknown_loops": estimate.unknown_loops,
    "recomputed": estimate.recomputed,
    "roofline": roofline and roofline._asdict(),
    "roofline_seconds": seconds,
    "bound": roofline and roofline.bound,
    "examples_per_second": seconds and size / seconds,
    "mfu": seconds and peak and model / (chips * peak * seconds),
  }


def _peak(run: Any) -> float | None:
  from ssljax import flops

  return flops.peak(run.mesh.devices.flat[0])
