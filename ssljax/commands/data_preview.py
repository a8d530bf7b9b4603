"""`ssljax data preview`: pictures of a config's training data beside their augmented views."""

import argparse
import pathlib

from ssljax import runtime
from ssljax.commands.configs import load_config
from ssljax.errors import UserError


def run(options: argparse.Namespace) -> int:
  """Returns the exit code of `ssljax data preview`."""
  config = load_config(options.config, options.overrides)
  out = pathlib.Path(options.out)
  if not out.parent.is_dir() or out.suffix != ".png":
    raise UserError(f"--out: found {out}, expected a .png file in a folder that exists")
  if options.rows < 1:
    raise UserError(f"--rows: found {options.rows}, expected at least 1")
  runtime.start(cpu_devices=options.cpu_devices)

  from ssljax.commands import final
  from ssljax.training import run as runs

  assembled = runs.assemble(config)
  final.views(assembled, rows=min(options.rows, assembled.job.data.batch_size)).save(out)
  classes = f", {assembled.source.num_classes} classes" if assembled.source.num_classes else ""
  print(f"{out}: {len(assembled.source):,} records{classes}, licence {assembled.source.licence}")
  return 0
