"""Files of weights, read as hostile: safetensors, and PyTorch's pickles by its reader of plain tensors alone."""

import pathlib
import pickle
from collections.abc import Mapping

import numpy as np

from ssljax.errors import UserError

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
NAMES = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin")


def find(place: pathlib.Path) -> pathlib.Path:
  """Returns the file of weights at a file's or folder's path.

  Raises:
    UserError: there is none.
  """
  if place.is_file() and place.suffix in SUFFIXES:
    return place
  found = [place / name for name in NAMES if (place / name).is_file()]
  if not found:
    raise UserError(f"--from: no weights in {place}, expected a folder with {' or '.join(NAMES)}, or a file of them")
  return found[0]


def read(file: pathlib.Path) -> dict[str, np.ndarray]:
  """Returns arrays by name, floats as float32.

  Raises:
    UserError: the file is damaged, or a pickle of more than tensors.
  """
  try:
    arrays = _safetensors(file) if file.suffix == ".safetensors" else _pickle(file)
  except (OSError, ValueError, KeyError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
    why = (str(error).splitlines() or [type(error).__name__])[0][:200]
    raise UserError(f"--from: {file} cannot be read as weights ({why})") from None
  return arrays


def write(file: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes safetensors with the note that PyTorch's readers look for."""
  from safetensors.numpy import save_file

  save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, file, metadata={"format": "pt"})


def _safetensors(file: pathlib.Path) -> dict[str, np.ndarray]:
  from safetensors import SafetensorError, safe_open

  try:
    with safe_open(file, framework="np") as held:
      return {name: _float32(held.get_tensor(name)) for name in held.keys()}  # noqa: SIM118 (no mapping)
  except SafetensorError as error:
    raise ValueError(str(error)) from None


def _pickle(file: pathlib.Path) -> dict[str, np.ndarray]:
  """Returns the tensors of a state dict, or of the one inside of a checkpoint ("model", "state_dict")."""
  import torch

  held = torch.load(file, map_location="cpu", weights_only=True)
  for key in ("state_dict", "model", "model_state"):
    held = held[key] if isinstance(held, dict) and isinstance(held.get(key), dict) else held
  if not isinstance(held, dict) or not all(isinstance(value, torch.Tensor) for value in held.values()):
    raise ValueError("expected tensors by name")
  return {name: value.float().numpy() if value.is_floating_point() else value.numpy() for name, value in held.items()}


def _float32(array: np.ndarray) -> np.ndarray:
  return array if array.dtype.kind in "iub" else array.astype(np.float32)
