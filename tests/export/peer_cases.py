"""One small model for every class weights can leave as, with inputs; and the models of the other side at random."""

import jax
import numpy as np

from ssljax import tree
from ssljax.export.hf_text import LlamaForCausalLM, T5ForConditionalGeneration
from ssljax.export.hf_vit import ViTMAEForPreTraining, ViTModel
from ssljax.export.native import Native
from ssljax.export.resnets import TimmResNet, TorchvisionResNet
from ssljax.export.timm_vit import TimmViT
from ssljax.models.mae_decoder import MAEDecoder
from ssljax.models.prefix_lm import PrefixLM
from ssljax.models.resnet import ResNet
from ssljax.models.t5 import T5
from ssljax.models.vit import ViT

RNG = np.random.default_rng(0)
IMAGES = {"image": RNG.normal(size=(8, 16, 16, 3)).astype(np.float32)}
PICTURES = {"image": RNG.normal(size=(8, 64, 64, 3)).astype(np.float32)}
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


def cases(*rows):
  return {f"{type(peer).__name__}-{name}": (peer, modules, inputs) for peer, name, modules, inputs in rows}


HERE = cases(
  (ViTModel(), "cls", vit(), IMAGES),
  (ViTModel(), "learnt", vit(positions="learnt", pooling="mean", norm_epsilon=1e-12), IMAGES),
  (ViTMAEForPreTraining(), "", mae(), IMAGES),
  (T5ForConditionalGeneration(), "untied", {"model": T5(variant="small", **SMALL)}, TEXT),
  (T5ForConditionalGeneration(), "tied", {"model": T5(variant="small", head="tied", **SMALL)}, TEXT),
  (LlamaForCausalLM(), "", {"model": PrefixLM(variant="tiny", **SMALL)}, TEXT),
  (Native(), "", mae(layer_scale=0.1, cls_token="none", pooling="mean"), IMAGES),
)
ELSEWHERE = cases(  # libraries that need torchvision
  (TimmViT(), "cls", vit(), IMAGES),
  (TimmViT(), "mean", vit(pooling="mean", positions="learnt", layer_scale=0.1), IMAGES),
  (TimmViT(), "none", vit(pooling="mean", cls_token="none"), IMAGES),
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


def random_arrays(modules):
  """Numbers in the place of all variables: scales and variances around 1, kernels by their fan-in."""
  numbers = np.random.default_rng(1)

  def one(name, shape):
    x = numbers.normal(size=shape)
    if name.endswith("/var") or name.endswith("/scale"):
      x = 1 + 0.2 * np.abs(x)
    elif name.endswith("/kernel"):
      x *= np.prod(shape[-4:-1] if len(shape) == 4 and "qkv" not in name else shape[-2:-1]) ** -0.5
    return x.astype(np.float32)

  return {name: one(name, shape) for name, shape in shapes(modules).items()}
