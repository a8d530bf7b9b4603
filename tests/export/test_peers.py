"""Every class weights can leave as: it gives the same numbers, and what comes back is the same to the bit."""

import json

import numpy as np
import pytest
from peer_cases import ELSEWHERE, HERE, IMAGES, TEXT, random_arrays, shapes

from ssljax.errors import UserError
from ssljax.export import folder, incoming, registry, torch_side
from ssljax.export.hf_text import LlamaForCausalLM, T5ForConditionalGeneration
from ssljax.export.hf_vit import ViTMAEForPreTraining, ViTModel
from ssljax.export.peer import Preprocessing
from ssljax.models.mae_decoder import MAEDecoder
from ssljax.models.positions import sincos_2d
from ssljax.models.prefix_lm import PrefixLM
from ssljax.models.resnet import ResNet
from ssljax.models.t5 import T5
from ssljax.models.vit import ViT

FACTS = {"objective": "x.X", "step": 3, "version": "0", "weights": "trained", "examples": 8}
FACTS |= {"evals": {}, "config": "{}"}
LOOKS = Preprocessing(16, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "bicubic")


def write(out, case, arrays):
  peer, modules, inputs = case
  looks = LOOKS if "image" in inputs else None
  return folder.write(out, peer, modules, arrays, inputs, preprocessing=looks, facts=FACTS)


def there_and_back(case, tmp_path):
  peer, modules, inputs = case
  arrays = random_arrays(modules)
  seen = write(tmp_path / "out", case, arrays)
  assert seen.passes and seen.largest < 2e-5, seen
  assert not list(tmp_path.glob(".*")) and "```python" in (tmp_path / "out" / "README.md").read_text()
  came = incoming.read(tmp_path / "out", peer, modules, shapes(modules), inputs, fresh=arrays)
  taken = [name for name in arrays if peer.holds(name)]
  assert sorted(came.arrays) == sorted(taken)
  for name in taken:
    np.testing.assert_array_equal(came.arrays[name], arrays[name], err_msg=name)
  write(tmp_path / "again", case, arrays | came.arrays)
  first, second = ((tmp_path / place / peer.weights_name).read_bytes() for place in ("out", "again"))
  assert first == second


@pytest.mark.parametrize("name", HERE)
def test_same_numbers_there_and_the_same_bits_back(name, tmp_path):
  there_and_back(HERE[name], tmp_path)


@pytest.mark.torchvision
@pytest.mark.parametrize("name", ELSEWHERE)
def test_same_numbers_in_timm_and_torchvision(name, tmp_path):
  there_and_back(ELSEWHERE[name], tmp_path)


def hf(kind, config, **options):
  import torch
  import transformers

  torch.manual_seed(0)
  model = getattr(transformers, kind)(getattr(transformers, config)(**options))
  with torch.no_grad():
    for parameter in model.parameters():  # biases and scales start alike: nothing would be told apart
      if parameter.requires_grad:
        parameter.add_(0.1 * torch.randn_like(parameter))
  return model


SIZE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 40}
PICTURE = {"image_size": 16, "patch_size": 4}
DECODER = {f"decoder_{key}": value for key, value in SIZE.items()}
WORDS = {"vocab_size": 40, "tie_word_embeddings": False}
TINY = {"variant": "Ti", "width": 16, "depth": 2, "heads": 2, "mlp_ratio": 2.5, "patch": 4, "image_size": 16}
SMALL = {"vocab_size": 40, "width": 16, "depth": 2, "heads": 2, "head_width": 6, "hidden": 24}


def released(kind):
  """(peer, our networks, the other side's model at random, inputs)."""
  if kind == "vit":
    vit = ViT(**TINY, positions="learnt", norm_epsilon=1e-12)
    return ViTModel(), {"encoder": vit}, hf("ViTForImageClassification", "ViTConfig", **SIZE, **PICTURE), IMAGES
  if kind == "mae":
    modules = {"encoder": ViT(**TINY, norm_epsilon=1e-12)}
    modules["decoder"] = MAEDecoder(grid=(4, 4), outputs=48, width=16, depth=2, heads=2, mlp_ratio=2.5)
    model = hf("ViTMAEForPreTraining", "ViTMAEConfig", **SIZE, **PICTURE, **DECODER)
    table = np.concatenate([np.zeros((1, 16), np.float32), sincos_2d((4, 4), 16)])[None]
    for place in (model.vit.embeddings.position_embeddings, model.decoder.decoder_pos_embed):
      place.data = torch_side.tensor(table)  # as in the released files; transformers 5.23 begins with zeros
    return ViTMAEForPreTraining(), modules, model, IMAGES
  if kind == "t5":
    sizes = {"d_model": 16, "d_kv": 6, "d_ff": 24, "num_layers": 2, "num_heads": 2, "feed_forward_proj": "gated-gelu"}
    model = hf("T5ForConditionalGeneration", "T5Config", **sizes, **WORDS)
    head = np.random.default_rng(3).normal(size=(40, 16)).astype(np.float32)
    model.lm_head.weight = type(model.lm_head.weight)(torch_side.tensor(head))  # transformers 5.23 begins tied
    return T5ForConditionalGeneration(), {"model": T5(variant="small", **SMALL)}, model, TEXT
  model = hf("LlamaForCausalLM", "LlamaConfig", **{**SIZE, "intermediate_size": 24}, head_dim=6, **WORDS)
  return LlamaForCausalLM(), {"model": PrefixLM(variant="tiny", **SMALL)}, model, TEXT


@pytest.mark.parametrize("kind", ["vit", "mae", "t5", "llama"])
def test_released_weights_give_their_own_numbers_here(kind, tmp_path):
  peer, modules, model, inputs = released(kind)
  model.save_pretrained(tmp_path / "released")
  came = incoming.read(tmp_path / "released", peer, modules, shapes(modules), inputs)
  assert came.comparison.passes and came.comparison.largest < 2e-5
  assert came.left == (["classifier.bias", "classifier.weight"] if kind == "vit" else [])
  write(tmp_path / "back", (peer, modules, inputs), came.arrays)
  from safetensors.numpy import load_file

  theirs, back = (peer.renamed(load_file(tmp_path / place / "model.safetensors")) for place in ("released", "back"))
  assert set(theirs) - set(back) <= set(came.left)
  for name, array in back.items():
    np.testing.assert_array_equal(array, theirs[name], err_msg=name)


def test_positions_of_another_picture_size_are_resized(tmp_path):
  peer, modules, model, _ = released("vit")
  model.save_pretrained(tmp_path / "released")
  larger = {"encoder": modules["encoder"].clone(image_size=24)}
  pictures = {"image": np.zeros((8, 24, 24, 3), np.float32)}
  came = incoming.read(tmp_path / "released", peer, larger, shapes(larger), pictures)
  assert came.resized == "encoder/params/pos_embed resized from (4, 4) to (6, 6) patches, bicubic"
  table = model.vit.embeddings.position_embeddings.detach().numpy()
  resized = came.arrays["encoder/params/pos_embed"]
  assert resized.shape == (1, 37, 16)
  np.testing.assert_array_equal(resized[:, 0], table[:, 0])  # the cls token has no place
  inside, theirs = resized[0, 1:].reshape(6, 6, 16), table[0, 1:].reshape(4, 4, 16)
  np.testing.assert_allclose(inside.mean((0, 1)), theirs.mean((0, 1)), atol=0.1)
  assert set(came.arrays) == set(shapes(larger))


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"heads": 4}, r"num_attention_heads 2, not 4 \(objective.encoder.heads\)"),
    ({"depth": 3, "norm_epsilon": 1e-6}, r"num_hidden_layers 2, not 3 .*; layer_norm_eps 1e-12, not 1e-06 \(obj"),
    ({"positions": "sincos"}, "position_embeddings .* is not the sine-cosine table: set positions=learnt"),
  ],
)
def test_other_sizes_are_named_by_our_keys(change, message, tmp_path):
  peer, modules, model, inputs = released("vit")
  model.save_pretrained(tmp_path / "released")
  other = {"encoder": modules["encoder"].clone(**change)}
  with pytest.raises(UserError, match=message):
    incoming.read(tmp_path / "released", peer, other, shapes(other), inputs)


def test_a_config_that_lies_about_the_heads_is_noticed(tmp_path):
  peer, modules, model, inputs = released("vit")
  model.save_pretrained(tmp_path / "released")
  file = tmp_path / "released" / "config.json"
  file.write_text(json.dumps(json.loads(file.read_text()) | {"hidden_act": "relu"}))
  with pytest.raises(UserError, match=r"hidden_act relu, not gelu|gives other numbers"):
    incoming.read(tmp_path / "released", peer, modules, shapes(modules), inputs)


def test_every_table_is_whole_and_names_nothing_twice():
  for peer, modules, _ in (HERE | ELSEWHERE).values():
    assert peer.misfit(modules) is None
    own = [name for name in shapes(modules) if peer.holds(name)]
    lines = peer.table(modules, own)
    assert sorted(line.ours for line in lines) == sorted(own)
    found = shapes(modules)
    theirs = [name for line in lines for name in line.names(found[line.ours]).values()]
    shared = [name for name in theirs if "head.attention.in_proj" in name]  # rows of one array
    assert len(set(theirs)) == len(theirs) - len(shared) / 2


@pytest.mark.parametrize(
  ("modules", "format", "name", "message"),
  [
    (
      {"encoder": ResNet(18)},
      "huggingface",
      None,
      "not as ViTModel: encoder is a ResNet.*formats that fit: timm, torch",
    ),
    ({"encoder": ResNet(18, stem="cifar")}, "timm", None, "stem is cifar.*formats that fit: safetensors"),
    ({"encoder": ResNet(50, width_multiplier=2)}, "torchvision", None, "width_multiplier is not 1"),
    ({"encoder": ViT(layer_scale=0.1)}, "huggingface", "ViTModel", "layer_scale is 0.1, this class has None"),
    ({"encoder": ViT()}, "huggingface", "ViTMAEForPretraining", "did you mean ViTMAEForPreTraining"),
    ({"encoder": ViT()}, "huggingface", "ViTMAEForPreTraining", "there is no decoder; formats that fit: timm, hugg"),
    ({"model": PrefixLM(9, "tiny", head="tied")}, "huggingface", None, "logits by sqrt.*formats that fit: safetensors"),
  ],
)
def test_what_fits_nowhere_is_told_what_fits(modules, format, name, message):
  with pytest.raises(UserError, match=message):
    registry.choose(modules, format=format, name=name)
