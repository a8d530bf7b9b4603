"""One small model for every class weights can leave as, with inputs; and the models of the other side at random."""

import jax
import numpy as np

from ssljax import tree
from ssljax.export.dual_peers import BertModel, CLIPModel, OpenCLIP, OpenCLIPSiglip, SiglipModel
from ssljax.export.hf_text import LlamaForCausalLM, T5ForConditionalGeneration
from ssljax.export.hf_vit import ViTMAEForPreTraining, ViTModel
from ssljax.export.native import Native
from ssljax.export.resnets import TimmResNet, TorchvisionResNet
from ssljax.export.timm_vit import TimmViT
from ssljax.models.bert import Bert
from ssljax.models.dual import DualEncoder, Tower
from ssljax.models.mae_decoder import MAEDecoder
from ssljax.models.prefix_lm import PrefixLM
from ssljax.models.resnet import ResNet
from ssljax.models.t5 import T5
from ssljax.models.text_tower import TextTower
from ssljax.models.vit import ViT

RNG = np.random.default_rng(0)
IMAGES = {"image": RNG.normal(size=(8, 16, 16, 3)).astype(np.float32)}
PICTURES = {"image": RNG.normal(size=(8, 64, 64, 3)).astype(np.float32)}
LARGE = RNG.normal(size=(2, 256, 256, 3)).astype(np.float32)
LENGTHS = np.arange(8)[:, None]  # of the padding behind each row
REAL = (np.arange(7) < 7 - LENGTHS % 4).astype(np.int32)
TOKENS = RNG.integers(3, 40, (8, 7)) * REAL
TEXT = {
  "inputs": TOKENS,
  "input_segments": REAL,
  "targets_in": np.pad(TOKENS, ((0, 0), (1, 0)))[:, :-1] * REAL,
  "target_segments": REAL,
  "target_positions": np.arange(7) * REAL,
  "prefix_in": (np.arange(7) < 3) * REAL,
}
TINY = {"variant": "Ti", "width": 16, "depth": 2, "heads": 2, "patch": 4, "image_size": 16}
SMALL = {"vocab_size": 40, "width": 16, "depth": 2, "heads": 2, "head_width": 6, "hidden": 24}


def vit(**options):
  return {"encoder": ViT(**TINY | options)}


def mae(**options):
  return vit(**options) | {"decoder": MAEDecoder(grid=(4, 4), outputs=48, width=8, depth=2, heads=2)}


def towers(image, text, **options):
  """A dual encoder of two small towers."""
  image = {"width": 10, "patch": 4, "positions": "learnt", "norm_epsilon": 1e-5, **image}
  vit = ViT(**TINY | {key: value for key, value in image.items() if key != "width"})
  size = {"vocab_size": 40, "length": 7, "width": 12, "depth": 2, "heads": 2}
  encoder = text.pop("encoder", TextTower)(**size | text.pop("fields"))
  return {"model": DualEncoder(Tower(vit, image["width"]), Tower(encoder, **text), **options)}


def clip(**text):
  image = {"pre_norm": "present", "patch_bias": "absent", "activation": "quick_gelu"}
  return towers(image, {"width": 10, "fields": {"activation": "quick_gelu", **text}})


def siglip():
  image = {"width": None, "pooling": "map", "cls_token": "none", "activation": "gelu_tanh", "norm_epsilon": 1e-6}
  fields = {"attention": "all", "pooling": "last", "activation": "gelu_tanh", "norm_epsilon": 1e-6}
  return towers(image, {"width": 16, "bias": "present", "fields": fields}, initial_scale=10.0, initial_bias=-10.0)


def released_siglip():
  """The smallest that timm has a name for, but for the text tower."""
  image = {"pooling": "map", "cls_token": "none", "positions": "learnt", "activation": "gelu_tanh"}
  vit = ViT("B", patch=32, image_size=256, norm_epsilon=1e-6, **image)
  fields = {"attention": "all", "pooling": "last", "activation": "gelu_tanh", "norm_epsilon": 1e-6, "heads": 2}
  text = TextTower(vocab_size=40, length=7, width=16, depth=2, **fields)
  return {"model": DualEncoder(Tower(vit, None), Tower(text, 768, "present"), 10.0, -10.0)}


PAIRS = IMAGES | {"text": np.where(REAL, TOKENS, 0)}


def cases(*rows):
  return {f"{type(peer).__name__}-{name}": (peer, modules, inputs) for peer, name, modules, inputs in rows}


HERE = cases(
  (ViTModel(), "cls", vit(), IMAGES),
  (ViTModel(), "learnt", vit(positions="learnt", pooling="mean", norm_epsilon=1e-12), IMAGES),
  (ViTMAEForPreTraining(), "", mae(), IMAGES),
  (T5ForConditionalGeneration(), "untied", {"model": T5(variant="small", **SMALL)}, TEXT),
  (T5ForConditionalGeneration(), "tied", {"model": T5(variant="small", head="tied", **SMALL)}, TEXT),
  (LlamaForCausalLM(), "", {"model": PrefixLM(variant="tiny", **SMALL)}, TEXT),
  (CLIPModel(), "", clip(eos=39), PAIRS),
  (SiglipModel(), "", siglip(), PAIRS),
  (BertModel(), "", towers({}, {"width": 10, "encoder": Bert, "fields": {"pooling": "mean"}}), PAIRS),
  (Native(), "", mae(layer_scale=0.1, cls_token="none", pooling="mean"), IMAGES),
)
ELSEWHERE = cases(  # libraries that need torchvision
  (TimmViT(), "cls", vit(), IMAGES),
  (TimmViT(), "mean", vit(pooling="mean", positions="learnt", layer_scale=0.1), IMAGES),
  (TimmViT(), "none", vit(pooling="mean", cls_token="none"), IMAGES),
  (OpenCLIP(), "", clip(), PAIRS),
  (
    OpenCLIPSiglip(),
    "",
    released_siglip(),
    {"image": LARGE, "text": PAIRS["text"][:2]},
  ),
  (TimmResNet(), "18", {"encoder": ResNet(18)}, PICTURES),
  (TimmResNet(), "50", {"encoder": ResNet(50)}, PICTURES),
  (TorchvisionResNet(), "18", {"encoder": ResNet(18)}, PICTURES),
  (TorchvisionResNet(), "50", {"encoder": ResNet(50)}, PICTURES),
)


def arguments(module):
  """What a module is initialised with: (positional, keyword) arrays."""
  if isinstance(module, ViT | ResNet):
    size = getattr(module, "image_size", 16)
    return (np.zeros((1, size, size, 3), np.float32),), {}
  if isinstance(module, MAEDecoder):
    return (np.zeros((1, 16, 16), np.float32), np.arange(16)[None]), {}
  if isinstance(module, DualEncoder):
    size = module.image.encoder.image_size
    return (np.zeros((1, size, size, 3), np.float32), TOKENS), {}
  segments = {"input_segments": REAL, "target_segments": REAL}
  if isinstance(module, T5):
    return (TOKENS, TOKENS), segments
  return (TOKENS,), {"segments": REAL, "positions": TEXT["target_positions"], "prefix": TEXT["prefix_in"] > 0}


def shapes(modules):
  found = {}
  for name, module in modules.items():
    given, options = arguments(module)
    like = jax.eval_shape(lambda m=module, g=given, o=options: m.init(jax.random.key(0), *g, **o))
    found |= {f"{name}/{path}": leaf.shape for path, leaf in tree.named_leaves(like)}
  return found


def fan_in(name, shape):
  if "conv" in name or "downsample" in name:
    return np.prod(shape[:3])
  return shape[-3] if "kv/" in name else shape[-2]


def random_arrays(modules):
  """Numbers in the place of all variables: scales and variances around 1, kernels by their fan-in."""
  numbers = np.random.default_rng(1)

  def one(name, shape):
    x = numbers.normal(size=shape)
    if name.endswith("/var") or name.endswith("/scale"):
      x = 1 + 0.2 * np.abs(x)
    elif name.endswith("/bias"):
      x *= 0.2
    elif name.endswith("/kernel"):
      x *= fan_in(name, shape) ** -0.5
    return x.astype(np.float32)

  return {name: one(name, shape) for name, shape in shapes(modules).items()}
