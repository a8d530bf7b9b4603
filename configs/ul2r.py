"""UL2R: a short second pretraining of an existing run with another mixture (Tay et al., U-PaLM, arXiv 2210.11399).

  ssljax train --config=configs/ul2r.py --workdir=runs/ul2r --from=runs/ul2

Half prefix language modelling, a quarter regular, a quarter extreme denoising, on the data and model of
`ul2_quickstart.py`, whose whole state it starts from; vocabulary and lengths are the same, so the ids are.
U-PaLM took 20,000 steps at batch 32, cosine from 1e-4 to 1e-6.
Number:    not yet measured.
"""

import importlib.util
import pathlib

BEFORE, STEPS = 300, 200


def get_config():
  spec = importlib.util.spec_from_file_location("quickstart", pathlib.Path(__file__).with_name("ul2_quickstart.py"))
  quickstart = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(quickstart)
  config = quickstart.get_config()
  config.steps = BEFORE + STEPS
  config.data.text.mixture = "ul2r"
  config.optimizer.learning_rate = dict(name="constant", value=2e-3)  # relative to the parameters' size (Adafactor)
  return config
