"""A vision transformer as timm's."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from ssljax.export import torch_side, vit_tables, weights
from ssljax.export.gate import Ours
from ssljax.export.peer import Arrays, Modules, Peer, Preprocessing
from ssljax.export.table import Line, under
from ssljax.export.tower_tables import norm, patches
from ssljax.models.vit import ViT

ARCHITECTURE = "vit_base_patch16_224"  # every size is written as this one with its arguments


class TimmViT(Peer):
  """`timm.models.VisionTransformer` of an encoder, without a head.

  The mean of the patch tokens is taken after the last norm, as here: global_pool="avg" and fc_norm=False.
  """

  format = "timm"
  name = "VisionTransformer"
  packages = ("timm", "torchvision")
  install = "torch==2.14.1 torchvision==0.29.1 timm"
  takes: ClassVar = {"encoder": ViT}
  keys: ClassVar = {
    "img_size": "image_size", "patch_size": "patch", "in_chans": "channels", "embed_dim": "width", "depth": "depth",
    "num_heads": "heads", "mlp_ratio": "mlp_ratio", "class_token": "cls_token", "init_values": "layer_scale",
    "global_pool": "pooling",
  }  # fmt: skip

  def misfit(self, modules: Modules) -> str | None:
    """Returns why the encoder cannot be written as this class."""
    return super().misfit(modules) or vit_tables.misfit(modules["encoder"], {"activation": "gelu"})

  def lines(self, modules: Modules) -> list[Line]:
    """Returns the table."""
    vit = modules["encoder"]
    lines = vit_tables.tokens(vit, cls="cls_token", positions="pos_embed")
    lines += patches("patch_embed.proj", vit)
    lines += vit_tables.timm_blocks("blocks", vit.layer_scale)
    return under([*lines, *norm("norm", "norm")], ours="encoder/params/")

  def constants(self, modules: Modules) -> dict[str, np.ndarray]:
    """Returns the fixed positions."""
    table = vit_tables.fixed_positions(modules["encoder"])
    return {} if table is None else {"pos_embed": table}

  def leave(self, name: str) -> bool:
    """Returns whether it is a classifier."""
    return name.startswith(("head.", "fc_norm."))

  def config(self, modules: Modules) -> dict[str, Any]:
    """Returns the arguments of `timm.create_model`."""
    vit = modules["encoder"]
    return {
      "img_size": vit.image_size,
      "patch_size": vit.patch,
      "in_chans": vit.channels,
      "embed_dim": vit.size.width,
      "depth": vit.size.depth,
      "num_heads": vit.size.heads,
      "mlp_ratio": vit.size.mlp_ratio,
      "class_token": vit.cls_token == "learnt",
      "init_values": vit.layer_scale,
      "global_pool": "token" if vit.pooling == "cls" else "avg",
      "fc_norm": False,
    }

  def files(self, modules: Modules, preprocessing: Preprocessing | None) -> dict[str, Mapping[str, Any]]:
    """Returns config.json as the hub has it."""
    vit = modules["encoder"]
    pretrained = {"input_size": [vit.channels, vit.image_size, vit.image_size], "num_classes": 0}
    pretrained |= {"first_conv": "patch_embed.proj", "classifier": "head", "fixed_input_size": True, "crop_pct": 1.0}
    if preprocessing:
      pretrained |= {"mean": list(preprocessing.mean), "std": list(preprocessing.std)}
      pretrained |= {"interpolation": preprocessing.interpolation}
    config = {"architecture": ARCHITECTURE, "num_classes": 0, "num_features": vit.features}
    config |= {"global_pool": self.config(modules)["global_pool"], "model_args": self._arguments(modules)}
    return {"config.json": config | {"pretrained_cfg": pretrained}}

  def _arguments(self, modules: Modules) -> dict[str, Any]:
    given = self.config(modules)
    return {key: value for key, value in given.items() if value is not None}

  def load(self, folder: str, modules: Modules) -> Any:
    """Returns `timm.create_model` of a folder as the hub has it, or of a file of weights alone."""
    import timm

    if (pathlib.Path(folder) / "config.json").is_file():
      return timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    model = timm.create_model(ARCHITECTURE, num_classes=0, **self._arguments(modules))
    return torch_side.filled(model, weights.read(pathlib.Path(folder)), leave=self.leave)

  def ours(self, ours: Ours, modules: Modules, inputs: Arrays) -> dict[str, np.ndarray]:
    """Returns the embedding and the patch tokens."""
    out = ours.apply("encoder", inputs["image"])
    return {"embedding": out["embedding"], "tokens": out["tokens"]}

  def theirs(self, model: Any, inputs: Arrays) -> dict[str, np.ndarray]:
    """Returns the same of timm's."""
    with torch_side.no_gradients():
      tokens = model.forward_features(torch_side.images(inputs))
      embedding = model.forward_head(tokens, pre_logits=True)
    return torch_side.outputs(embedding=embedding, tokens=tokens[:, model.num_prefix_tokens :])

  def usage(self, modules: Modules) -> str:
    """Returns how timm loads it."""
    return 'import timm\n\nmodel = timm.create_model("local-dir:FOLDER", pretrained=True).eval()'

  def read_config(self, folder: str) -> Mapping[str, Any] | None:
    """Returns the arguments in config.json; None where there is none or it names an architecture alone."""
    file = pathlib.Path(folder) / "config.json"
    return json.loads(file.read_text("utf-8")).get("model_args") if file.is_file() else None
