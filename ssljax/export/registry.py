"""Every class weights can leave as, by format; the first that fits is the default."""

import pathlib

from ssljax.errors import UserError, nearest
from ssljax.export.dual_peers import BertModel, CLIPModel, OpenCLIP, OpenCLIPSiglip, SiglipModel
from ssljax.export.hf_text import LlamaForCausalLM, T5ForConditionalGeneration
from ssljax.export.hf_vit import ViTMAEForPreTraining, ViTModel
from ssljax.export.native import Native
from ssljax.export.peer import Modules, Peer
from ssljax.export.resnets import TimmResNet, TorchvisionResNet
from ssljax.export.timm_vit import TimmViT

PEERS: tuple[Peer, ...] = (
  TimmViT(),
  TimmResNet(),
  TorchvisionResNet(),
  ViTModel(),
  ViTMAEForPreTraining(),
  T5ForConditionalGeneration(),
  LlamaForCausalLM(),
  CLIPModel(),
  SiglipModel(),
  BertModel(),
  OpenCLIP(),
  OpenCLIPSiglip(),
  Native(),
)
FORMATS = tuple(dict.fromkeys(peer.format for peer in PEERS))


def choose(modules: Modules, *, format: str, name: str | None = None) -> Peer:
  """Returns the class to write these networks as: the first of the format that fits, or the one called `name`.

  Raises:
    UserError: none fits; the message says why, and which formats do.
  """
  peers = [peer for peer in PEERS if peer.format == format]
  if name is not None and name not in [peer.name for peer in peers]:
    raise UserError(f"--class: nothing of {format} is called {nearest(name, [peer.name for peer in peers])}")
  wanted = [peer for peer in peers if name in (None, peer.name)]
  reasons = {peer.name: peer.misfit(modules) for peer in wanted}
  fitting = [peer for peer in wanted if reasons[peer.name] is None]
  if not fitting:
    near = [peer.name for peer in wanted if Peer.misfit(peer, modules) is None] or list(reasons)  # of the same networks
    why = "; ".join(f"not as {name}: {reasons[name]}" for name in near)
    raise UserError(f"--format={format}: {why}; formats that fit: {', '.join(formats(modules))}")
  return fitting[0]


def formats(modules: Modules) -> list[str]:
  """Returns the formats these networks can be written in."""
  return list(dict.fromkeys(peer.format for peer in PEERS if peer.misfit(modules) is None))


def for_import(modules: Modules, *, format: str, place: pathlib.Path, name: str | None = None) -> Peer:
  """Returns the class to read foreign weights as: the one called `name`, or named in their config, or the first.

  Raises:
    UserError: as for `choose`.
  """
  for peer in PEERS:
    named = (peer.read_config(str(place)) or {}).get("architectures") or () if peer.format == format else ()
    if name is None and peer.name in named and peer.misfit(modules) is None:
      return peer
  return choose(modules, format=format, name=name)
