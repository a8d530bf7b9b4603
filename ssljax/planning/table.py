"""A plan as a person reads it."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

_GiB = 2**30
Row = tuple[str, str, str]


def show(plan: Mapping[str, Any]) -> None:
  """Prints a plan: the lines of what it is about, then a table; plain columns where stdout is no terminal."""
  console = Console()
  for key, value in about(plan):
    print(f"{key:11} {value}")
  table = Table("", "a chip", "", box=None if not console.is_terminal else Table().box)
  for row in rows(plan):
    table.add_row(*row)
  console.print(table)
  for line in notes(plan):
    print(line)


def about(plan: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
  """Yields what the plan is about, line by line."""
  yield "config", plan["config"]
  slices = f", {plan['slices']} slices" if plan["slices"] > 1 else ""
  yield "topology", f"{plan['topology']}: {plan['num_chips']} chips ({plan['device']}){slices}"
  mesh = " x ".join(f"{axis}={size}" for axis, size in plan["mesh"].items())
  yield "mesh", f"{mesh}; {plan['batch_size']:,} examples a step, {plan['rows']:,} a chip and microbatch"
  yield "remat", plan["remat"] or "the model has none"


def rows(plan: Mapping[str, Any]) -> Iterator[Row]:
  """Yields (what, how much, remark)."""
  yield "fits", "yes" if plan["fits"] else "NO", _room(plan)
  parts = plan["state_bytes"]
  for name in ("parameters", "optimizer", "objective"):
    yield name, size(parts[name]), ""
  if plan["argument_bytes"] is not None:
    yield "arguments", size(plan["argument_bytes"]), "state and batch as laid out"
    yield "temporaries", size(plan["temp_bytes"]), "activations, gradients, buffers"
    yield "results, code", size(plan["result_bytes"] + plan["code_bytes"]), ""
  yield "model", f"{plan['model_flops'] / plan['num_chips'] / 1e12:,.3f} TFLOP", "loss and gradient, no recomputation"
  if plan["compiled_flops"] is not None:
    yield from _compiled(plan)
  if plan["roofline_seconds"]:
    yield from _times(plan)


def _room(plan: Mapping[str, Any]) -> str:
  if plan["needed_bytes"] is None:
    return f"the compiler refused it; {size(plan['hbm_bytes'])} a chip"
  limit = "memory unknown" if plan["hbm_bytes"] is None else f"of {size(plan['hbm_bytes'])}"
  return f"{size(plan['needed_bytes'])} {limit}"


def _compiled(plan: Mapping[str, Any]) -> Iterator[Row]:
  share = plan["compiled_flops"] * plan["num_chips"] / max(plan["model_flops"], 1)
  yield "compiled", f"{plan['compiled_flops'] / 1e12:,.3f} TFLOP", f"{share:.3f} x model"
  yield "moved", f"{plan['moved_bytes'] / 1e9:,.2f} GB", "between memory and chip"
  for kind, row in plan["collectives"].items():
    across = f", {row['sent_across'] / 1e9:,.3f} GB between slices" if row["sent_across"] else ""
    remark = f"{row['count']:,} times, {row['bytes'] / 1e9:,.3f} GB of arrays{across}"
    yield kind, f"{row['sent'] / 1e9:,.3f} GB", remark


def _times(plan: Mapping[str, Any]) -> Iterator[Row]:
  for name, value in plan["roofline"].items():
    yield name, f"{value * 1e3:,.2f} ms", "<- the bound" if name == plan["bound"] else ""
  rate = f"{plan['examples_per_second']:,.0f} examples/s in all, MFU {plan['mfu']:.0%}"
  yield "step", f"{plan['roofline_seconds'] * 1e3:,.2f} ms", f"at best: {rate}"


def notes(plan: Mapping[str, Any]) -> Iterator[str]:
  """Yields what a reader should know about these numbers."""
  yield f"data: {plan['data']}"
  if plan["argument_bytes"] is None:
    yield "the compiler refused the step, so no more is known of it; --fit looks for a batch and a remat that it takes"
  if plan["unknown_loops"]:
    yield f"{plan['unknown_loops']} loops of unknown length count once: compiled, moved and collectives are too low"
  if plan["recomputed"]:
    yield f"memory is short: the compiler runs {plan['recomputed']} kernels again; a smaller batch may be faster"
  if plan["opaque_kernels"]:
    yield f"{plan['opaque_kernels']} hand-written kernels are not in compiled and moved"
  for fit in plan.get("fit", ()):
    rate = f", at best {fit['examples_per_second']:,.0f} examples/s" if fit["examples_per_second"] else ""
    yield f"fit: remat={fit['remat']}: {fit['rows'] or 'no'} examples a chip{rate}"
  if plan.get("best"):
    yield f"best: {plan['best']}"
  yield "nothing was run: bytes are XLA's, times are the chip's limits (docs/scale.md)"


def size(count: int | None) -> str:
  """Returns bytes as GiB, or MiB where they are few."""
  if count is None:
    return "unknown"
  return f"{count / _GiB:,.2f} GiB" if count >= _GiB // 10 else f"{count / 2**20:,.2f} MiB"
