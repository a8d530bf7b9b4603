"""What a model is elsewhere: the one interface between a table of names and the library that loads the folder."""

import abc
import importlib.util
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
from flax import linen as nn

from ssljax.errors import UserError
from ssljax.export.gate import Ours
from ssljax.export.table import Line
from ssljax.models.vit import ViT

Arrays = Mapping[str, np.ndarray]
Modules = Mapping[str, nn.Module]
EXAMPLES = 8  # how many real inputs both sides are given


class Preprocessing(NamedTuple):
  """How pictures become the encoder's input: resized, the centre cut out, (x / 255 - mean) / std.

  Attributes:
    size: side of the input, pixels.
    mean, std: of the channels, of pixel values in [0, 1].
    interpolation: "bicubic" or "bilinear".
  """

  size: int
  mean: tuple[float, ...]
  std: tuple[float, ...]
  interpolation: str

  @classmethod
  def of(cls, augment: Any) -> "Preprocessing | None":
    """Returns that of an augmentation's evaluation; None where it makes no pictures."""
    if not hasattr(augment, "statistics"):
      return None
    mean, std = augment.statistics
    return cls(augment.size, mean, std, augment.interpolation)


class Peer(abc.ABC):
  """A class of another library that holds the same numbers; stateless.

  Attributes:
    format: what `--format` calls the library.
    name: the class there.
    packages: modules that have to be importable.
    install: the command that brings them.
    takes: the networks it holds: our part's name -> its class.
    keys: what its config calls things -> our config's keys under the part, compared when weights come in.
    covers: what the paths of the arrays it holds begin with: all of the networks it takes, or a part of one.
    weights_name: what the file of weights is called.
  """

  format: ClassVar[str]
  name: ClassVar[str]
  packages: ClassVar[tuple[str, ...]]
  install: ClassVar[str]
  takes: ClassVar[Mapping[str, type[nn.Module]]]
  keys: ClassVar[Mapping[str, str]] = {}
  covers: ClassVar[str] = ""
  weights_name: ClassVar[str] = "model.safetensors"

  def misfit(self, modules: Modules) -> str | None:
    """Returns why these networks cannot be written as this class, None where they can."""
    for part, kind in self.takes.items():
      if part not in modules:
        return f"there is no {part}"
      if not isinstance(modules[part], kind):
        return f"{part} is a {type(modules[part]).__name__}"
    return None

  def holds(self, path: str) -> bool:
    """Returns whether an array of ours has a place in this class."""
    return path.startswith(self.covers) and (not self.takes or path.split("/")[0] in self.takes)

  @abc.abstractmethod
  def lines(self, modules: Modules) -> list[Line]:
    """Returns the table: our paths as `parts.take` gives them, their names as in the file."""

  def table(self, modules: Modules, ours: Iterable[str]) -> list[Line]:
    """Returns the table of the networks it takes, whose arrays of ours have these paths."""
    del ours
    return self.lines(modules)

  def constants(self, modules: Modules) -> dict[str, np.ndarray]:
    """Returns arrays of theirs that we compute and do not keep."""
    del modules
    return {}

  def leave(self, name: str) -> bool:
    """Returns whether an array of theirs may stay behind when weights come in: a head of another task."""
    del name
    return False

  @abc.abstractmethod
  def config(self, modules: Modules) -> dict[str, Any]:
    """Returns the sizes as their config has them."""

  @abc.abstractmethod
  def files(self, modules: Modules, preprocessing: Preprocessing | None) -> dict[str, Mapping[str, Any]]:
    """Returns the JSON files beside the weights by name."""

  def programs(self) -> dict[str, str]:
    """Returns files of Python to lie beside the weights, by name."""
    return {}

  @abc.abstractmethod
  def load(self, folder: str, modules: Modules) -> Any:
    """Returns their model in evaluation mode, loaded from a folder as their users would."""

  @abc.abstractmethod
  def ours(self, ours: Ours, modules: Modules, inputs: Arrays) -> dict[str, np.ndarray]:
    """Returns our outputs for the inputs, by name."""

  @abc.abstractmethod
  def theirs(self, model: Any, inputs: Arrays) -> dict[str, np.ndarray]:
    """Returns theirs by the same names."""

  @abc.abstractmethod
  def usage(self, modules: Modules) -> str:
    """Returns the lines of Python that load the folder `FOLDER`, for its card."""

  def read_config(self, folder: str) -> Mapping[str, Any] | None:
    """Returns the config of foreign weights with the keys of `config`; None where there is none."""
    del folder
    return None

  def other_sizes(self, modules: Modules, config: Mapping[str, Any]) -> list[str]:
    """Returns what their config says and our networks do not, and the keys of ours that say otherwise."""
    expected, part = self.config(modules), next(iter(self.takes), "")
    return [
      f"{theirs} {config[theirs]}, not {expected[theirs]} (objective.{part}.{ours})"
      for theirs, ours in self.keys.items()
      if theirs in config and theirs in expected and config[theirs] != expected[theirs]
    ]

  def image_encoder(self, modules: Modules) -> tuple[str, ViT] | None:
    """Returns where the variables of its encoder of pictures are, and that encoder; None where it is no ViT."""
    vit = modules.get("encoder")
    return ("encoder/params", vit) if isinstance(vit, ViT) else None

  def sized(self, modules: Modules, config: Mapping[str, Any]) -> Modules:
    """Returns the networks for the picture size that their config names."""
    size = config.get(next((theirs for theirs, ours in self.keys.items() if ours == "image_size"), ""))
    if not isinstance(size, int) or not isinstance(modules.get("encoder"), ViT):
      return modules
    return {**modules, "encoder": modules["encoder"].clone(image_size=size)}

  def renamed(self, arrays: Arrays) -> dict[str, np.ndarray]:
    """Returns foreign arrays by the names of the table: other versions' names, prefixes."""
    return dict(arrays)

  def check_installed(self) -> None:
    """Checks that the library is there.

    Raises:
      UserError: it is not; the message says how to get it.
    """
    missing = [package for package in self.packages if importlib.util.find_spec(package) is None]
    if missing:
      raise UserError(f"--format={self.format}: {', '.join(missing)} is not installed: pip install {self.install}")
