"""A residual network as torchvision's and as timm's, whose names are the same."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from ssljax.export import torch_side, weights
from ssljax.export.gate import Ours
from ssljax.export.peer import Arrays, Modules, Peer, Preprocessing
from ssljax.export.table import Line
from ssljax.models.resnet import EXPANSION, STAGES, ResNet


def table(depth: int) -> list[Line]:
  """Returns the lines of a ResNet of this depth."""
  lines = _convolution("conv1", "bn1")
  for stage, blocks in enumerate(STAGES[depth], start=1):
    for block in range(blocks):
      place = f"layer{stage}/{block}"
      for number in range(1, 3 if EXPANSION[depth] == 1 else 4):
        lines += _convolution(f"{place}/conv{number}", f"{place}/bn{number}")
      if block == 0 and (stage > 1 or EXPANSION[depth] > 1):
        lines += _convolution(f"{place}/downsample/0", f"{place}/downsample/1")
  return lines


def _convolution(convolution: str, norm: str) -> list[Line]:
  """Returns the lines of a convolution and the batch normalisation after it."""
  first, second = (path.replace("/", ".") for path in (convolution, norm))
  return [
    Line(f"encoder/params/{convolution}/kernel", f"{first}.weight", "h w i o -> o i h w"),
    Line(f"encoder/params/{norm}/scale", f"{second}.weight"),
    Line(f"encoder/params/{norm}/bias", f"{second}.bias"),
    Line(f"encoder/batch_stats/{norm}/mean", f"{second}.running_mean"),
    Line(f"encoder/batch_stats/{norm}/var", f"{second}.running_var"),
  ]


class TorchvisionResNet(Peer):
  """`torchvision.models.resnet18` or `resnet50` of an encoder, its classifier taken out."""

  format = "torchvision"
  name = "ResNet"
  packages: ClassVar[tuple[str, ...]] = ("torchvision",)
  install = "torch==2.14.1 torchvision==0.29.1"
  takes: ClassVar = {"encoder": ResNet}
  keys: ClassVar = {"architecture": "depth"}

  def misfit(self, modules: Modules) -> str | None:
    """Returns why the encoder cannot be written as this class."""
    if reason := super().misfit(modules):
      return reason
    resnet = modules["encoder"]
    if resnet.stem != "imagenet":
      return f"encoder.stem is {resnet.stem}, and this class has ImageNet's"
    return None if resnet.width_multiplier == 1 else "encoder.width_multiplier is not 1"

  def lines(self, modules: Modules) -> list[Line]:
    """Returns the table."""
    return table(modules["encoder"].depth)

  def leave(self, name: str) -> bool:
    """Returns whether it is the classifier or a count of batches, which nothing reads."""
    return name.startswith("fc.") or name.endswith("num_batches_tracked")

  def config(self, modules: Modules) -> dict[str, Any]:
    """Returns the function's name."""
    return {"architecture": f"resnet{modules['encoder'].depth}"}

  def files(self, modules: Modules, preprocessing: Preprocessing | None) -> dict[str, Mapping[str, Any]]:
    """Returns config.json: the architecture, and what pictures have to go through."""
    more = {"preprocessing": preprocessing._asdict()} if preprocessing else {}
    return {"config.json": self.config(modules) | more}

  def load(self, folder: str, modules: Modules) -> Any:
    """Returns the network with these weights, its classifier the identity."""
    import torch
    import torchvision

    model = getattr(torchvision.models, f"resnet{modules['encoder'].depth}")()
    model.fc = torch.nn.Identity()
    return torch_side.filled(model, weights.read(pathlib.Path(folder)), leave=self.leave)

  def ours(self, ours: Ours, modules: Modules, inputs: Arrays) -> dict[str, np.ndarray]:
    """Returns the embedding."""
    return {"embedding": ours.apply("encoder", inputs["image"])["embedding"]}

  def theirs(self, model: Any, inputs: Arrays) -> dict[str, np.ndarray]:
    """Returns the same of theirs."""
    with torch_side.no_gradients():
      return torch_side.outputs(embedding=model(torch_side.images(inputs)))

  def usage(self, modules: Modules) -> str:
    """Returns how torchvision loads it."""
    return (
      "import torch, torchvision\nfrom safetensors.torch import load_file\n\n"
      f"model = torchvision.models.{self.config(modules)['architecture']}()\n"
      'model.fc = torch.nn.Identity()\nmodel.load_state_dict(load_file("FOLDER/model.safetensors"))\nmodel.eval()'
    )

  def read_config(self, folder: str) -> Mapping[str, Any] | None:
    """Returns config.json where it lies beside the weights."""
    file = pathlib.Path(folder) / "config.json"
    return json.loads(file.read_text("utf-8")) if file.is_file() else None


class TimmResNet(TorchvisionResNet):
  """timm's `resnet18` or `resnet50` of an encoder, without a classifier."""

  format = "timm"
  packages = ("timm", "torchvision")
  install = "torch==2.14.1 torchvision==0.29.1 timm"

  def files(self, modules: Modules, preprocessing: Preprocessing | None) -> dict[str, Mapping[str, Any]]:
    """Returns config.json as the hub has it."""
    pretrained: dict[str, Any] = {"num_classes": 0, "first_conv": "conv1", "classifier": "fc", "crop_pct": 1.0}
    if preprocessing:
      pretrained |= {"input_size": [3, preprocessing.size, preprocessing.size], "mean": list(preprocessing.mean)}
      pretrained |= {"std": list(preprocessing.std), "interpolation": preprocessing.interpolation}
    features = {"num_classes": 0, "num_features": modules["encoder"].features}
    return {"config.json": self.config(modules) | features | {"pretrained_cfg": pretrained}}

  def load(self, folder: str, modules: Modules) -> Any:
    """Returns `timm.create_model` of a folder as the hub has it, or of a file of weights alone."""
    import timm

    if (pathlib.Path(folder) / "config.json").is_file():
      return timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    model = timm.create_model(self.config(modules)["architecture"], num_classes=0)
    return torch_side.filled(model, weights.read(pathlib.Path(folder)), leave=self.leave)

  def usage(self, modules: Modules) -> str:
    """Returns how timm loads it."""
    return 'import timm\n\nmodel = timm.create_model("local-dir:FOLDER", pretrained=True).eval()'
