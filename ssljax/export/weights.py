"""Files of weights, read as hostile: safetensors, and PyTorch's pickles by its reader of plain tensors alone."""

import json
import pathlib
import pickle
import warnings
from collections.abc import Mapping

import ml_dtypes  # noqa: F401 (NumPy knows bfloat16 by it)
import numpy as np

from ssljax.errors import UserError

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
NAMES = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin")
INDEX = "model.safetensors.index.json"  # of a model in several files


def find(place: pathlib.Path) -> list[pathlib.Path]:
  """Returns the files of weights at a file's or folder's path.

  Raises:
    UserError: there are none.
  """
  if place.is_file() and place.suffix in SUFFIXES:
    return [place]
  if (place / INDEX).is_file():
    return _indexed(place / INDEX)
  found = [place / name for name in NAMES if (place / name).is_file()]
  if not found:
    raise UserError(f"--from: no weights in {place}, expected a folder with {' or '.join(NAMES)}, or a file of them")
  return found[:1]


def read(place: pathlib.Path) -> dict[str, np.ndarray]:
  """Returns the arrays of a file or folder by name, floats as float32.

  Raises:
    UserError: there are none, a file is damaged, or a pickle of more than tensors.
  """
  return {name: array for file in find(place) for name, array in _read(file).items()}


def write(file: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes safetensors with the note that PyTorch's readers look for."""
  from safetensors.numpy import save_file

  save_file({name: np.asarray(array, order="C") for name, array in arrays.items()}, file, metadata={"format": "pt"})


def _indexed(index: pathlib.Path) -> list[pathlib.Path]:
  try:
    names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
  except (ValueError, KeyError, AttributeError, TypeError) as error:
    raise UserError(f"--from: {index} is no index of weights ({_line(error)})") from None
  if strange := [name for name in names if not isinstance(name, str) or pathlib.PurePath(name).name != name]:
    raise UserError(f"--from: {index} names {strange[0]!r}, expected files of its own folder")
  return [index.with_name(name) for name in names]


def _read(file: pathlib.Path) -> dict[str, np.ndarray]:
  try:
    return _safetensors(file) if file.suffix == ".safetensors" else _pickle(file)
  except (OSError, ValueError, KeyError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
    raise UserError(f"--from: {file} cannot be read as weights ({_line(error)})") from None


def _line(error: Exception) -> str:
  return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _safetensors(file: pathlib.Path) -> dict[str, np.ndarray]:
  from safetensors import SafetensorError, safe_open

  try:
    with safe_open(file, framework="np") as held:
      return {name: _float32(held.get_tensor(name)) for name in held.keys()}  # noqa: SIM118 (no mapping)
  except SafetensorError as error:
    raise ValueError(str(error)) from None


def _pickle(file: pathlib.Path) -> dict[str, np.ndarray]:
  """Returns the tensors of a state dict, or of the one inside of a checkpoint ("model", "state_dict")."""
  try:
    import torch
  except ModuleNotFoundError:
    raise UserError(f'--from: {file.name} is read with torch: pip install "ssljax[torch]"') from None
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what it finds in a pickle that it then refuses
    held = torch.load(file, map_location="cpu", weights_only=True)
  for key in ("state_dict", "model", "model_state"):
    held = held[key] if isinstance(held, dict) and isinstance(held.get(key), dict) else held
  if not isinstance(held, dict) or not all(isinstance(value, torch.Tensor) for value in held.values()):
    raise ValueError("expected tensors by name")
  return {name: value.float().numpy() if value.is_floating_point() else value.numpy() for name, value in held.items()}


def _float32(array: np.ndarray) -> np.ndarray:
  return array if array.dtype.kind in "iub" else array.astype(np.float32)
