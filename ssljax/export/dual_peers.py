"""Image and text towers as Hugging Face's CLIP, SigLIP and BERT and as open_clip's CLIP."""

import json
import pathlib
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
from flax import linen as nn

from ssljax.export import hf_bert, hf_clip, hf_siglip, open_clip_clip, open_clip_siglip, torch_side, weights
from ssljax.export.gate import Ours
from ssljax.export.huggingface import HuggingFace
from ssljax.export.peer import Arrays, Modules, Peer, Preprocessing
from ssljax.export.table import Line, under
from ssljax.export.tower_tables import value
from ssljax.models.bert import Bert
from ssljax.models.dual import DualEncoder
from ssljax.models.vit import ViT

FREE = ("name", "initial_scale", "initial_bias")  # fields that weights do not depend on


class Towers(Peer):
  """A dual encoder by a module of tables: `misfit`, `lines`, `leave`, `config`, `fields` of `hf_clip` and its like."""

  takes: ClassVar = {"model": DualEncoder}
  tables: ClassVar[ModuleType]

  def misfit(self, modules: Modules) -> str | None:
    """Returns why the model cannot be written as this class."""
    return super().misfit(modules) or self.tables.misfit(modules["model"])

  def lines(self, modules: Modules) -> list[Line]:
    """Returns the table."""
    return under(self.tables.lines(modules["model"]), ours="model/params/")

  def leave(self, name: str) -> bool:
    """Returns whether it is what older versions kept beside the weights."""
    return self.tables.leave(name)

  def config(self, modules: Modules) -> dict[str, Any]:
    """Returns the sizes as their config has them."""
    return self.tables.config(modules["model"])

  def other_sizes(self, modules: Modules, config: Mapping[str, Any]) -> list[str]:
    """Returns what the config says and our fields do not."""
    pairs = _differences(modules["model"], self.tables.fields(config), "objective.model")
    return [f"{place} {theirs}, not {ours}" for place, theirs, ours in pairs]

  def image_encoder(self, modules: Modules) -> tuple[str, ViT] | None:
    """Returns the image tower's ViT and where it is; None where it is none."""
    encoder = modules["model"].image.encoder
    return ("model/params/image/encoder", encoder) if isinstance(encoder, ViT) else None

  def sized(self, modules: Modules, config: Mapping[str, Any]) -> Modules:
    """Returns the networks for their picture size."""
    model, size = modules["model"], self.tables.fields(config)["image"]["encoder"]["image_size"]
    if not isinstance(model.image.encoder, ViT):
      return modules
    return {"model": model.clone(image=model.image.clone(encoder=model.image.encoder.clone(image_size=size)))}

  def ours(self, ours: Ours, modules: Modules, inputs: Arrays) -> dict[str, np.ndarray]:
    """Returns the features of images and texts, of unit length, and the logits of all pairs."""
    out = ours.apply("model", inputs["image"], inputs["text"])
    features = {name: _unit(out[name]["projection"]) for name in ("image", "text")}
    logits = out["scale"] * features["image"] @ features["text"].T + out["bias"]
    return {"image features": features["image"], "text features": features["text"], "logits": logits}


class _HuggingFaceTowers(Towers, HuggingFace):
  """The same of transformers; both its models are called alike."""

  def theirs(self, model: Any, inputs: Arrays) -> dict[str, np.ndarray]:
    """Returns the same of transformers."""
    with torch_side.no_gradients():
      out = model(input_ids=torch_side.tensor(inputs["text"].astype(np.int64)), pixel_values=torch_side.images(inputs))
    found = {"image features": out.image_embeds, "text features": out.text_embeds, "logits": out.logits_per_image}
    return torch_side.outputs(**found)

  def usage(self, modules: Modules) -> str:
    """Returns how transformers loads it."""
    return f'from transformers import {self.name}\n\nmodel = {self.name}.from_pretrained("FOLDER").eval()'


class CLIPModel(_HuggingFaceTowers):
  """`transformers.CLIPModel`."""

  name = "CLIPModel"
  tables = hf_clip


class SiglipModel(_HuggingFaceTowers):
  """`transformers.SiglipModel`."""

  name = "SiglipModel"
  tables = hf_siglip


class OpenCLIP(Towers):
  """`open_clip.CLIP`, whose towers are its own."""

  format = "open_clip"
  name = "CLIP"
  packages = ("open_clip", "torchvision")
  install = "torch==2.14.1 torchvision==0.29.1 open_clip_torch"
  tables = open_clip_clip
  weights_name = "open_clip_model.safetensors"
  kind: ClassVar[Mapping[str, Any]] = {}

  def files(self, modules: Modules, preprocessing: Preprocessing | None) -> dict[str, Mapping[str, Any]]:
    """Returns open_clip_config.json as the hub has it."""
    looks = {}
    if preprocessing:
      looks = {"mean": list(preprocessing.mean), "std": list(preprocessing.std)}
      looks |= {"interpolation": preprocessing.interpolation, "resize_mode": "shortest"}
    return {"open_clip_config.json": {"model_cfg": {**self.config(modules), **self.kind}, "preprocess_cfg": looks}}

  def load(self, folder: str, modules: Modules) -> Any:
    """Returns the model of a folder as the hub has it, or of a file of weights."""
    import open_clip

    place = pathlib.Path(folder)
    if (place / "open_clip_config.json").is_file():
      return open_clip.create_model(f"local-dir:{folder}").eval()
    model = getattr(open_clip.model, self.name)(**self.config(modules))
    return torch_side.filled(model, weights.read(place), leave=self.leave)

  def theirs(self, model: Any, inputs: Arrays) -> dict[str, np.ndarray]:
    """Returns the same of open_clip."""
    with torch_side.no_gradients():
      text = torch_side.tensor(inputs["text"].astype(np.int64))
      features = model.encode_image(torch_side.images(inputs), normalize=True), model.encode_text(text, normalize=True)
      logits = model.logit_scale.exp() * features[0] @ features[1].T
      logits = logits if model.logit_bias is None else logits + model.logit_bias
    return torch_side.outputs(**{"image features": features[0], "text features": features[1], "logits": logits})

  def usage(self, modules: Modules) -> str:
    """Returns how open_clip loads it."""
    return 'import open_clip\n\nmodel, preprocess = open_clip.create_model_from_pretrained("local-dir:FOLDER")'

  def read_config(self, folder: str) -> Mapping[str, Any] | None:
    """Returns "model_cfg" of open_clip_config.json; None where there is none."""
    file = pathlib.Path(folder) / "open_clip_config.json"
    return json.loads(file.read_text("utf-8")).get("model_cfg") if file.is_file() else None


class OpenCLIPSiglip(OpenCLIP):
  """`open_clip.CustomTextCLIP` with one of timm's image towers, as the released SigLIPs are."""

  name = "CustomTextCLIP"
  packages = ("open_clip", "timm", "torchvision")
  tables = open_clip_siglip
  kind: ClassVar = {"custom_text": True}

  def leave(self, name: str) -> bool:
    """Returns nothing: all of it is ours."""
    return False


class BertModel(HuggingFace):
  """`transformers.BertModel`: the text tower of a dual encoder; the image tower is not written, nor read."""

  name = "BertModel"
  takes: ClassVar = {"model": DualEncoder}
  covers = "model/params/text/encoder/"

  def misfit(self, modules: Modules) -> str | None:
    """Returns why the text tower cannot be written as this class."""
    return super().misfit(modules) or hf_bert.misfit(modules["model"].text.encoder)

  def lines(self, modules: Modules) -> list[Line]:
    """Returns the table."""
    return under(hf_bert.lines(modules["model"].text.encoder), ours=self.covers)

  def leave(self, name: str) -> bool:
    """Returns whether it is the pooler or a head."""
    return hf_bert.leave(name)

  def renamed(self, arrays: Arrays) -> dict[str, np.ndarray]:
    """Returns the arrays without the prefix that models with a head have."""
    return {name.removeprefix("bert."): array for name, array in arrays.items()}

  def config(self, modules: Modules) -> dict[str, Any]:
    """Returns BertConfig's sizes."""
    return hf_bert.config(modules["model"].text.encoder)

  def other_sizes(self, modules: Modules, config: Mapping[str, Any]) -> list[str]:
    """Returns what the config says and the text tower's fields do not."""
    found = _differences(modules["model"].text.encoder, hf_bert.fields(config), "objective.model.text.encoder")
    return [f"{place} {theirs}, not {ours}" for place, theirs, ours in found]

  def loading(self) -> dict[str, Any]:
    """Returns that there is no pooler."""
    return {"add_pooling_layer": False}

  def ours(self, ours: Ours, modules: Modules, inputs: Arrays) -> dict[str, np.ndarray]:
    """Returns the tokens of the texts."""
    tokens = ours.apply("model", None, inputs["text"])["text"]["tokens"]
    return {"tokens": _kept(tokens, inputs["text"], modules["model"].text.encoder)}

  def theirs(self, model: Any, inputs: Arrays) -> dict[str, np.ndarray]:
    """Returns the same of transformers."""
    mask = (inputs["text"] != model.config.pad_token_id).astype(np.int64)
    with torch_side.no_gradients():
      out = model(torch_side.tensor(inputs["text"].astype(np.int64)), attention_mask=torch_side.tensor(mask))
    return {"tokens": torch_side.outputs(tokens=out.last_hidden_state)["tokens"] * mask[..., None]}

  def files(self, modules: Modules, preprocessing: Preprocessing | None) -> dict[str, Mapping[str, Any]]:
    """Returns config.json."""
    return super().files(modules, None)

  def usage(self, modules: Modules) -> str:
    """Returns how transformers loads it."""
    return (
      "from transformers import BertModel\n\n"
      'model = BertModel.from_pretrained("FOLDER", add_pooling_layer=False).eval()'
    )


def _unit(x: np.ndarray) -> np.ndarray:
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _kept(tokens: np.ndarray, ids: np.ndarray, encoder: Bert) -> np.ndarray:
  return tokens * (ids != encoder.padding)[..., None]


def _differences(module: nn.Module, fields: Mapping[str, Any], place: str) -> Iterator[tuple[str, Any, Any]]:
  """Yields (key of ours, their value, ours) wherever a config section differs from a module."""
  for key, theirs in fields.items():
    if isinstance(theirs, Mapping):
      yield from _differences(getattr(module, key), theirs, f"{place}.{key}")
    elif key not in FREE and theirs != value(module, key):
      yield f"{place}.{key}", theirs, value(module, key)
