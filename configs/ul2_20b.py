"""UL2 20B at the paper's settings (Tay et al., arXiv 2205.05131): 32 + 32 layers, 4096 wide, 1 T tokens of C4.

  ssljax train --config=configs/ul2_20b.py --workdir=runs/ul2_20b

Hardware:  a pod; nobody has run it. So far it is initialised abstractly (19.6 billion parameters) and nothing more:
           its state does not fit a device: share it, --config.mesh.data=1 --config.mesh.fsdp=-1 (docs/scale.md).
Number:    not measured.
"""

import importlib.util
import pathlib


def get_config():
  spec = importlib.util.spec_from_file_location("ul2_base", pathlib.Path(__file__).with_name("ul2_base.py"))
  base = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(base)
  config = base.get_config(variant="20b", batch=1024, steps=2_000_000)
  config.objective.model.remat = "full"
  config.evaluation.batch_size = 64
  return config
