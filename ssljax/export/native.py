"""Any networks under our own names: what no other library has a class for."""

import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
from flax import linen as nn

from ssljax.export import weights
from ssljax.export.gate import Ours
from ssljax.export.peer import Arrays, Modules, Peer, Preprocessing
from ssljax.export.table import Line


class Native(Peer):
  """All networks of a run in one file, arrays called by their paths; a JAX program reads it with NumPy alone."""

  format = "safetensors"
  name = "arrays"
  packages: ClassVar[tuple[str, ...]] = ()
  install = ""
  takes: ClassVar = {}

  def lines(self, modules: Modules) -> list[Line]:
    """Returns nothing: there are no layers to listen to."""
    return []

  def table(self, modules: Modules, ours: Iterable[str]) -> list[Line]:
    """Returns that every name is kept."""
    return [Line(name, name) for name in ours]

  def config(self, modules: Modules) -> dict[str, Any]:
    """Returns the networks' fields."""
    return {name: _fields(module) for name, module in modules.items()}

  def files(self, modules: Modules, preprocessing: Preprocessing | None) -> dict[str, Mapping[str, Any]]:
    """Returns config.json: the fields of every network, and what pictures have to go through."""
    more = {"preprocessing": preprocessing._asdict()} if preprocessing else {}
    return {"config.json": {"modules": self.config(modules)} | more}

  def programs(self) -> dict[str, str]:
    """Returns the loader."""
    return {"load.py": LOADER}

  def load(self, folder: str, modules: Modules) -> Any:
    """Returns the arrays."""
    return weights.read(pathlib.Path(folder))

  def ours(self, ours: Ours, modules: Modules, inputs: Arrays) -> dict[str, np.ndarray]:
    """Returns the numbers themselves: they are what is compared."""
    return {"arrays": _flat(ours.arrays)}

  def theirs(self, model: Any, inputs: Arrays) -> dict[str, np.ndarray]:
    """Returns the numbers that were read."""
    return {"arrays": _flat(model)}

  def usage(self, modules: Modules) -> str:
    """Returns how the file is read."""
    name = next(iter(modules))
    return f'from load import load\n\nmodule, variables = load("{name}")\n# module.apply(variables, ...)'

  def read_config(self, folder: str) -> Mapping[str, Any] | None:
    """Returns the fields of every network."""
    file = pathlib.Path(folder) / "config.json"
    return json.loads(file.read_text("utf-8")).get("modules") if file.is_file() else None


LOADER = '''"""Loads a network of this folder: module, variables = load("NAME"). Needs ssljax and safetensors."""

import json
import pathlib

from safetensors.numpy import load_file

from ssljax import build

HERE = pathlib.Path(__file__).parent


def load(part):
  fields = json.loads((HERE / "config.json").read_text())["modules"][part]
  module, variables = build.build(fields, "models", where=part), {}
  for name, array in load_file(HERE / "model.safetensors").items():
    first, *path, last = name.split("/")
    if first == part:
      place = variables
      for key in path:
        place = place.setdefault(key, {})
      place[last] = array
  return module, variables
'''


def _fields(module: Any) -> dict[str, Any]:
  kind = type(module)
  name = f"{kind.__module__.removeprefix('ssljax.models.')}.{kind.__name__}"
  fields = {key: getattr(module, key) for key in kind.__dataclass_fields__ if key not in ("parent", "name")}
  return {"name": name} | {key: _json(value) for key, value in fields.items()}


def _flat(arrays: Arrays) -> np.ndarray:
  return np.concatenate([arrays[name].ravel() for name in sorted(arrays)])


def _json(value: Any) -> Any:
  if isinstance(value, nn.Module):
    return _fields(value)
  return list(value) if isinstance(value, tuple) else value
