"""The gate: both libraries run on the same inputs, and what differs is found layer by layer."""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from ssljax.export.parts import variables
from ssljax.export.table import Line, to_theirs

TOLERANCE = 1e-4
Arrays = Mapping[str, np.ndarray]


class Ours:
  """Our networks with their variables, and what every layer of them gave.

  Attributes:
    arrays: the variables by path.
    captured: outputs by path, as "encoder/params/blocks/attn/qkv"; those of stacked layers are stacked.
  """

  def __init__(self, modules: Mapping[str, nn.Module], arrays: Arrays):
    self._modules, self.arrays = modules, arrays
    self.captured: dict[str, np.ndarray] = {}

  def apply(self, part: str, *args: Any, **keywords: Any) -> Any:
    """Returns what a network gives for these arguments."""

    def run(values: Any, *args: Any) -> Any:
      return self._modules[part].apply(values, *args, capture_intermediates=True, mutable=["intermediates"], **keywords)

    with jax.default_matmul_precision("highest"):
      out, held = jax.jit(run)(variables(self.arrays, part), *args)
    for path, leaf in jax.tree_util.tree_leaves_with_path(held["intermediates"]):
      names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
      self.captured.setdefault("/".join([part, "params", *names[:-1]]), np.asarray(leaf))
    return jax.tree.map(np.asarray, out)


class Comparison(NamedTuple):
  """What the gate saw.

  Attributes:
    differences: the largest difference of each output, by name, over the output's root mean square where that is
      more than 1.
    layer: the first layer that differs, as the file calls it; one whose weights did not arrive counts as such. None
      where all is well or none was found.
    layer_difference: the same of that layer's output.
  """

  differences: dict[str, float]
  layer: str | None = None
  layer_difference: float = 0.0

  @property
  def largest(self) -> float:
    """Returns the largest of the outputs' differences."""
    return max(self.differences.values())

  @property
  def passes(self) -> bool:
    """Returns whether all outputs agree."""
    return self.largest <= TOLERANCE


def compare(peer: Any, model: Any, modules: Mapping[str, nn.Module], arrays: Arrays, inputs: Arrays) -> Comparison:
  """Returns how the outputs of a peer's loaded model differ from ours.

  Args:
    peer: a `peer.Peer`.
    model: its loaded model, a `torch.nn.Module`.
    modules: our networks by name.
    arrays: their variables by path, as `parts.take` gives them.
    inputs: what both are given.
  """
  ours = Ours(modules, arrays)
  expected = peer.ours(ours, modules, inputs)
  lines = peer.lines(modules)
  with _listening(model, lines, arrays) if lines else contextlib.nullcontext({}) as heard:
    found = peer.theirs(model, inputs)
  differences = {name: _difference(found[name], expected[name]) for name in expected}
  comparison = Comparison(differences)
  if comparison.passes:
    return comparison
  for name, (line, index, output) in heard.items():
    own = None if output is None else _layer(ours.captured, line, index, output)
    size = float("inf") if output is None else 0.0 if own is None else _difference(output, own)
    if not size <= TOLERANCE:
      return Comparison(differences, name, size)
  return comparison


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
  """Returns the largest difference over the root mean square, where that is more than 1; NaN counts as infinite."""
  if found.shape != expected.shape:
    return float("inf")
  size = np.max(np.abs(found.astype(np.float64) - expected)) / max(1.0, float(np.sqrt(np.mean(np.square(expected)))))
  return float(size) if np.isfinite(size) else float("inf")


@contextlib.contextmanager
def _listening(model: Any, lines: list[Line], arrays: Arrays) -> Iterator[dict[str, Any]]:
  """Yields what the peer's layers give while it runs, in order: name -> (line, index, output).

  A layer is known by the bits of its weight, so it does not matter what the peer calls it once it is loaded. Those
  whose weights no layer has come first, without output.
  """
  known = dict(_weights(lines, arrays))
  layers = [(_digest(weight), module) for module in model.modules() for weight in module.parameters(recurse=False)]
  arrived = {digest for digest, _ in layers}
  heard = {name: (line, index, None) for digest, (name, line, index) in known.items() if digest not in arrived}
  hooks = [module.register_forward_hook(_note(heard, *known[digest])) for digest, module in layers if digest in known]
  try:
    yield heard
  finally:
    for hook in hooks:
      hook.remove()


def _weights(lines: list[Line], arrays: Arrays) -> Iterator[tuple[bytes, tuple[str, Line, tuple[int, ...]]]]:
  """Yields (digest of the weight, (layer, line, index)) of every product and convolution."""
  written = to_theirs(lines, {line.ours: arrays[line.ours] for line in lines})
  for line in lines:
    if line.ours.endswith("/kernel"):
      for index, name in line.names(arrays[line.ours].shape).items():
        yield hashlib.blake2b(written[name].tobytes()).digest(), (name.removesuffix(".weight"), line, index)


def _digest(parameter: Any) -> bytes:
  return hashlib.blake2b(parameter.detach().cpu().numpy().tobytes()).digest()


def _note(heard: dict[str, Any], name: str, line: Line, index: tuple[int, ...]) -> Any:
  def hook(module: Any, inputs: Any, output: Any) -> None:
    del module, inputs
    if hasattr(output, "detach"):
      heard.setdefault(name, (line, index, output.detach().cpu().numpy()))

  return hook


def _layer(captured: Arrays, line: Line, index: tuple[int, ...], output: np.ndarray) -> np.ndarray | None:
  """Returns what our layer gave, in the shape of the peer's; None where it cannot be told."""
  own = captured.get(line.ours.removesuffix("/kernel"))
  if own is None:
    return None
  if line.axes:  # the first axis is the layer; a second one tells q, k and v, next to the last
    own = own[index[0]]
  if len(line.axes) > 1:
    own = own[..., index[1], :]
  if output.ndim == 4 and own.size == output.size:  # channels first
    own = np.moveaxis(own.reshape(len(own), *output.shape[2:], -1), -1, 1)
  return own.reshape(output.shape) if own.size == output.size else None
