"""Plans of the configs for TPU slices and GPU nodes that are not here, kept and compared: what moved since?

    pip install -e ".[tpu,gpu-plan]" && python benchmarks/plans.py [--only=NAME] [--check]

One `ssljax plan --json` process a row, one after the other. Without options it makes the rows that results/plans.json
has not, or has of other options or versions, and writes results/plans.json and results/plans.md after each, so an
interrupted run goes on where it was. `--check` makes the rows anew, writes nothing, says which numbers are more than
2 % off the file's, and ends with 1 if any is. Nothing is run: all numbers are the compiler's and the chips' data
sheets'.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import time

from ssljax.planning.table import size

HERE = pathlib.Path(__file__).parent
GOLDEN = HERE / "results" / "plans.json"
TABLE = HERE / "results" / "plans.md"
TOLERANCE = 0.02
NUMBERS = (
  "fits", "num_chips", "hbm_bytes", "needed_bytes", "state_bytes", "argument_bytes", "temp_bytes", "peak_bytes",
  "code_bytes", "model_flops", "compiled_flops", "moved_bytes", "collectives", "roofline", "roofline_seconds", "bound",
  "examples_per_second", "mfu",
)  # fmt: skip
COLUMNS = (
  "plan", "chips", "fits", "memory", "arguments", "temporaries", "TFLOP", "compiled / model", "moved", "sent",
  "compute ms", "memory ms", "interconnect ms", "bound", "made in",
)  # fmt: skip
SHARED = "--config.mesh.data=1 --config.mesh.fsdp=-1"
PLAIN_SIMCLR = "--config.objective.encoder.remat=none --config.objective.encoder.depth=2"

# name -> options of `ssljax plan`, its config first. Growing slices have 16 images a chip.
ROWS = {
  "mae_l16_8_chips": f"mae_vit_l16.py --topology=v5e:2x4 {SHARED} --config.data.batch_size=128",
  "mae_l16_64_chips": f"mae_vit_l16.py --topology=v5e:8x8 {SHARED} --config.data.batch_size=1024",
  "simclr_b16_depth_2_no_remat": (
    f"simclr_vit_b16_pod.py --topology=v5e:2x4 {PLAIN_SIMCLR} --config.data.batch_size=128"
  ),
  "ul2_base_no_remat": "ul2_base.py --topology=v5e:2x4 --config.data.batch_size=32",
  "ul2_base_no_remat_full_memory": "ul2_base.py --topology=v5e:2x4 --config.data.batch_size=64",
  "mae_l16_256_chips": f"mae_vit_l16.py --topology=v5e:16x16 {SHARED} --config.data.batch_size=4096",
  "mae_b16_2_slices": "mae_vit_b16.py --topology=v5e:4x4 --slices=2 --config.data.batch_size=2048",
  "mae_quickstart_v4": "quickstart_mae.py --topology=v4:2x2x1",
  "mae_quickstart_v6e": "quickstart_mae.py --topology=v6e:2x4",
  "mae_quickstart_tpu7x": "quickstart_mae.py --topology=tpu7x:2x2x1",
  "simclr_resnet50": "simclr_resnet50.py --topology=v5e:4x4",
  "mae_l16_h100": "mae_vit_l16.py --topology=h100:8x8 --config.mesh.data=8 --config.mesh.fsdp=8",
  "simclr_b16_pod": "simclr_vit_b16_pod.py --topology=v5p:4x4x4",
  "ul2_20b": f"ul2_20b.py --topology=v5p:8x8x8 {SHARED}",
}


def compilers(options):
  """Packages and versions of what decides about a row's program; None where one is not installed."""
  compiler = "jax-cuda12-pjrt" if "--topology=h100" in options else "libtpu"
  try:
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jax", compiler))
  except importlib.metadata.PackageNotFoundError:
    return None


def make(options):
  """One row: the plan's numbers, what was asked and by whom; None where the command failed."""
  config, *rest = options.split()
  command = [sys.executable, "-m", "ssljax", "plan", f"--config={HERE.parent}/configs/{config}", *rest, "--json"]
  begun = time.monotonic()
  done = subprocess.run(command, capture_output=True, text=True)
  if done.returncode:
    print(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}", flush=True)
    return None
  plan = json.loads(done.stdout)
  made = {"options": options, "compilers": compilers(options), "seconds": round(time.monotonic() - begun)}
  return made | {key: plan[key] for key in NUMBERS}


def flat(value, prefix=""):
  """{"collectives.all-reduce.count": 3, ...} of a row."""
  if not isinstance(value, dict):
    return {prefix[:-1]: value}
  return {key: leaf for name, inner in value.items() for key, leaf in flat(inner, f"{prefix}{name}.").items()}


def moved(old, new):
  """What differs between two rows, a line each; times of compilation are no part."""
  before, after = (flat({key: row[key] for key in ("compilers", *NUMBERS)}) for row in (old, new))
  for key in sorted({*before, *after}):
    a, b = before.get(key), after.get(key)
    numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in (a, b))
    same = abs(a - b) <= TOLERANCE * max(abs(a), abs(b)) if numbers else a == b
    if not same:
      yield f"  {key}: {a} -> {b}" + (f" ({b / a - 1:+.1%})" if numbers and a else "")


def write(rows):
  """Writes the golden file and the table; a reader never sees half of one."""
  ordered = {name: rows[name] for name in ROWS if name in rows}
  for file, text in ((GOLDEN, json.dumps(ordered, indent=1) + "\n"), (TABLE, table(ordered))):
    temporary = file.with_suffix(".tmp")
    temporary.write_text(text)
    os.replace(temporary, file)


def table(rows):
  """The golden file as Markdown."""
  made_with = "; ".join(sorted({row["compilers"] for row in rows.values()}))
  lines = ["# Plans", "", f"`python benchmarks/plans.py`; {made_with}.", ""]
  lines += ["Bytes, TFLOP and times are those of one device of jax (of tpu7x a chip has two); `made in` is the time of"]
  lines += ["the command on two cores that did other work too. What is seen here: docs/scale.md.", ""]
  lines += ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
  lines += [f"| {name} | " + " | ".join(cells(row)) + " |" for name, row in rows.items()]
  lines += ["", "## Options of `ssljax plan`", ""]
  lines += [f"- {name}: `--config=configs/{row['options']}`" for name, row in rows.items()]
  return "\n".join(lines) + "\n"


def cells(row):
  """A row's cells but for its name."""
  first = [str(row["num_chips"]), "yes" if row["fits"] else "NO"]
  first += [f"{size(row['needed_bytes'])} of {size(row['hbm_bytes'])}"]
  first += [size(row["argument_bytes"]), size(row["temp_bytes"])]
  model = row["model_flops"] / row["num_chips"]
  if row["compiled_flops"] is None:
    return [*first, short(model / 1e12), *[""] * 7, f"{row['seconds']} s"]
  sent = sum(one["sent"] + one["sent_across"] for one in row["collectives"].values())
  work = [short(model / 1e12), f"{row['compiled_flops'] / model:.4f}"]
  work += [f"{short(row['moved_bytes'] / 1e9)} GB", f"{short(sent / 1e9)} GB"]
  return [*first, *work, *(short(1e3 * s) for s in row["roofline"].values()), row["bound"], f"{row['seconds']} s"]


def short(number):
  """Three digits, all of them before the point."""
  return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def current(row, options):
  """Whether a kept row is what would be asked now."""
  return row is not None and (row["options"], row["compilers"]) == (options, compilers(options))


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument("--only", choices=ROWS, metavar="NAME", help=", ".join(ROWS))
  parser.add_argument("--check", action="store_true")
  options = parser.parse_args()
  kept = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
  wanted = [options.only] if options.only else list(ROWS)
  if options.check:
    wanted = [name for name in wanted if name in kept]
  elif not options.only:
    wanted = [name for name in wanted if not current(kept.get(name), ROWS[name])]
  wrong = 0
  for name in wanted:
    row = make(ROWS[name])
    differences = ["  no plan"] if row is None else list(moved(kept[name], row)) if name in kept else []
    print(f"{name}: {row['seconds'] if row else '?'} s", *differences, sep="\n", flush=True)
    wrong += row is None or (options.check and bool(differences))
    if row is not None and not options.check:
      kept[name] = row
      write(kept)
  return 1 if wrong else 0


if __name__ == "__main__":
  sys.exit(main())
