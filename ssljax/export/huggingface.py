"""What all classes of Hugging Face's transformers share: how a folder is loaded, and its preprocessing file."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from ssljax.errors import UserError
from ssljax.export.peer import Peer, Preprocessing

RESAMPLING = {"bilinear": 2, "bicubic": 3}  # Pillow's numbers


class HuggingFace(Peer):
  """A class of transformers, loaded by `from_pretrained`."""

  format = "huggingface"
  packages = ("torch", "transformers")
  install = '"ssljax[torch]"'

  def load(self, folder: str, modules: Any) -> Any:
    """Returns the model of a folder; weights that were not found or not used are an error.

    Raises:
      UserError: they are.
    """
    import torch
    import transformers

    kind = getattr(transformers, self.name)
    options = {"local_files_only": True, "dtype": torch.float32, "output_loading_info": True}
    with quiet():
      model, about = kind.from_pretrained(folder, **self.loading(), **options)
    wrong = [name for key in ("missing_keys", "mismatched_keys") for name in about.get(key, ())]
    if wrong:
      raise UserError(f"{self.name}: transformers does not find {wrong[0]} in {folder} ({len(wrong)} in all)")
    return model.eval()

  def loading(self) -> dict[str, Any]:
    """Returns arguments of the class beside the config."""
    return {}

  def read_config(self, folder: str) -> Mapping[str, Any] | None:
    """Returns config.json; None where there is none."""
    file = pathlib.Path(folder) / "config.json"
    return json.loads(file.read_text("utf-8")) if file.is_file() else None

  def files(self, modules: Any, preprocessing: Preprocessing | None) -> dict[str, Mapping[str, Any]]:
    """Returns config.json, and preprocessor_config.json of what reads pictures."""
    config = {"architectures": [self.name], **self.config(modules), "dtype": "float32"}
    return {"config.json": config} | preprocessor(preprocessing)


def preprocessor(given: Preprocessing | None) -> dict[str, Mapping[str, Any]]:
  """Returns preprocessor_config.json: the shorter side to the size, the centre square, mean and deviation."""
  if given is None:
    return {}
  size = given.size
  content = {
    "image_processor_type": "CLIPImageProcessor",  # the one that cuts the centre out
    "do_resize": True,
    "size": {"shortest_edge": size},
    "resample": RESAMPLING[given.interpolation],
    "do_center_crop": True,
    "crop_size": {"height": size, "width": size},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": list(given.mean),
    "image_std": list(given.std),
    "do_convert_rgb": True,
  }
  return {"preprocessor_config.json": content}


def quiet() -> Any:
  """Returns the context in which transformers tells its errors alone and draws no bars."""
  import contextlib

  from transformers.utils import logging

  @contextlib.contextmanager
  def inside() -> Any:
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
      yield
    finally:
      logging.set_verbosity(level)

  return inside()
