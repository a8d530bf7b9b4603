"""Prints the plan of a config for each topology given, a JSON object a line; a process of its own, for it loads libtpu.

usage: compile_for_tpu.py CONFIG TOPOLOGY=BATCH ... -- MORE OPTIONS
"""

import sys

from ssljax.cli import main

config, *topologies = sys.argv[1 : sys.argv.index("--")]
options = sys.argv[sys.argv.index("--") + 1 :]
for topology, batch in (text.split("=") for text in topologies):
  code = main(
    ["plan", f"--config={config}", f"--topology={topology}", f"--config.data.batch_size={batch}", "--json", *options]
  )
  if code:
    sys.exit(code)
