"""The few calls to PyTorch that all its libraries share."""

from collections.abc import Mapping
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


def no_gradients() -> Any:
  """Returns the context in which PyTorch keeps nothing for a backward pass."""
  import torch

  return torch.inference_mode()
