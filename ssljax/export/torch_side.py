"""The few calls to PyTorch that all its libraries share."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def tensor(array: np.ndarray) -> Any:
  """Returns the array as a tensor of its own."""
  import torch

  return torch.from_numpy(np.array(array))


def images(inputs: Mapping[str, np.ndarray]) -> Any:
  """Returns `image` f32[B,H,W,C] as a tensor with channels first."""
  return tensor(np.moveaxis(inputs["image"], -1, 1))


def outputs(**tensors: Any) -> dict[str, np.ndarray]:
  """Returns the tensors as arrays by name."""
  return {name: value.detach().float().cpu().numpy() for name, value in tensors.items()}


def filled(model: Any, arrays: Mapping[str, np.ndarray], *, leave: Callable[[str], bool]) -> Any:
  """Returns the model in evaluation mode with these weights, all of them and no others; `leave` names are left out.

  Counts of batches may be missing: PyTorch fills them in.
  """
  model.load_state_dict({name: tensor(array) for name, array in arrays.items() if not leave(name)})
  return model.eval()


def no_gradients() -> Any:
  """Returns the context in which PyTorch keeps nothing for a backward pass."""
  import torch

  return torch.inference_mode()
