"""The masked autoencoder against published numbers and a PyTorch transcription written from the formulas."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

from ssljax import rng as random
from ssljax import sharding, tree
from ssljax.errors import UserError
from ssljax.models.resnet import ResNet
from ssljax.models.vit import ViT
from ssljax.objectives.mae import MAE, mae_loss, normalize_patches, patchify, random_masking

ENCODER = {"variant": "Ti", "width": 16, "depth": 2, "heads": 2, "patch": 4, "image_size": 16}
OBJECTIVE = MAE(encoder=ViT(**ENCODER), decoder_width=8, decoder_depth=1, decoder_heads=2)
NOISE = jnp.array([[0.3, 0.1, 0.9, 0.5, 0.2, 0.8, 0.7, 0.4]])
RNG = jax.random.key(5)


def batch_of(count=8):
  numbers = np.random.default_rng(0)
  index = np.stack([np.zeros(count), 100 + np.arange(count)], axis=1).astype("uint32")
  return {"image": numbers.normal(size=(count, 16, 16, 3)).astype("float32"), "index": index}


@pytest.fixture(scope="module")
def params():
  shapes, state = jax.eval_shape(lambda: OBJECTIVE.init(jax.random.key(0), batch_of()))
  assert state == {}
  numbers = np.random.default_rng(1)
  return jax.tree.map(lambda leaf: 0.2 * numbers.normal(size=leaf.shape).astype("float32"), shapes)


@pytest.fixture(scope="module")
def evaluate():
  """One compilation: function(params, batch) -> ((loss, output), gradient)."""
  loss = lambda params, batch: OBJECTIVE.loss(params, {}, batch, rng=RNG, step=jnp.zeros((), jnp.int32))
  return jax.jit(jax.value_and_grad(lambda p, b: (lambda out: (out.loss, out))(loss(p, b)), has_aux=True))


def test_golden_masking():
  keep_idx, restore_idx, mask = random_masking(NOISE, ratio=0.75)
  np.testing.assert_array_equal(keep_idx, [[1, 4]])
  np.testing.assert_array_equal(restore_idx, [[2, 0, 7, 4, 1, 6, 5, 3]])
  np.testing.assert_array_equal(mask, [[1, 0, 1, 1, 0, 1, 1, 1]])


def test_golden_normalisation_and_loss():
  images = jnp.arange(48.0).reshape(1, 3, 4, 4).transpose(0, 2, 3, 1)
  target = normalize_patches(patchify(images, patch=2))
  np.testing.assert_allclose(target[0, 0, :3], [-1.3392506, -0.18097981, 0.97729098], rtol=1e-5)
  loss = mae_loss(jnp.zeros_like(target), target, jnp.array([[1.0, 0.0, 1.0, 1.0]]))
  np.testing.assert_allclose(loss, 0.9166666619, rtol=1e-6)


class Block(nn.Module):
  def __init__(self, width, heads):
    super().__init__()
    self.heads = heads
    self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
    self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
    self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})

  def forward(self, x):
    b, n, d = x.shape
    qkv = self.attn["qkv"](self.norm1(x)).reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
    weights = (qkv[0] @ qkv[1].transpose(-1, -2) / math.sqrt(d // self.heads)).softmax(-1)
    x = x + self.attn["proj"]((weights @ qkv[2]).transpose(1, 2).reshape(b, n, d))
    return x + self.mlp["fc2"](nn.functional.gelu(self.mlp["fc1"](self.norm2(x))))


def torch_sincos(grid, dim):
  """[1 + grid * grid, dim]: a row of zeros for cls, then number by number."""
  table = torch.zeros(1 + grid * grid, dim)
  for h in range(grid):
    for w in range(grid):
      for i in range(dim // 4):
        omega = 1 / 10000 ** (i / (dim / 4))
        row = table[1 + h * grid + w]
        row[i], row[dim // 4 + i] = math.sin(w * omega), math.cos(w * omega)
        row[dim // 2 + i], row[3 * dim // 4 + i] = math.sin(h * omega), math.cos(h * omega)
  return table


class TorchMAE(nn.Module):
  """Width 16, decoder width 8, two and one blocks, patches of 4 pixels of 16 x 16 images."""

  def __init__(self):
    super().__init__()
    self.encoder = nn.ModuleDict(
      {
        "patch_embed": nn.ModuleDict({"proj": nn.Conv2d(3, 16, 4, 4)}),
        "blocks": nn.ModuleList([Block(16, 2) for _ in range(2)]),
        "norm": nn.LayerNorm(16, eps=1e-6),
      }
    )
    self.encoder.cls_token = nn.Parameter(torch.zeros(1, 1, 16))
    self.decoder = nn.ModuleDict(
      {
        "embed": nn.Linear(16, 8),
        "blocks": nn.ModuleList([Block(8, 2)]),
        "norm": nn.LayerNorm(8, eps=1e-6),
        "pred": nn.Linear(8, 48),
      }
    )
    self.decoder.mask_token = nn.Parameter(torch.zeros(1, 1, 8))

  def forward(self, images, noise):
    e, d = self.encoder, self.decoder
    positions = torch_sincos(4, 16)
    x = e["patch_embed"]["proj"](images).flatten(2).transpose(1, 2) + positions[1:]
    count, size, width = x.shape
    shuffle = noise.argsort(1)
    restore = shuffle.argsort(1)
    x = torch.gather(x, 1, shuffle[:, :4, None].expand(-1, -1, width))
    x = torch.cat([(e.cls_token + positions[:1]).expand(count, -1, -1), x], 1)
    for block in e["blocks"]:
      x = block(x)
    x = d["embed"](e["norm"](x))
    tokens = torch.cat([x[:, 1:], d.mask_token.expand(count, size - 4, -1)], 1)
    tokens = torch.gather(tokens, 1, restore[..., None].expand(-1, -1, 8))
    x = torch.cat([x[:, :1], tokens], 1) + torch_sincos(4, 8)
    for block in d["blocks"]:
      x = block(x)
    prediction = d["pred"](d["norm"](x))[:, 1:]
    target = images.reshape(count, 3, 4, 4, 4, 4)
    target = torch.einsum("nchpwq->nhwpqc", target).reshape(count, size, 48)
    target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6) ** 0.5
    mask = torch.ones(count, size)
    mask[:, :4] = 0
    mask = torch.gather(mask, 1, restore)
    return (((prediction - target) ** 2).mean(-1) * mask).sum() / mask.sum()


def torch_tensors(params):
  """Our tree under PyTorch's names: layers unstacked, kernels transposed, the patch kernel as a convolution's."""
  tensors = {}
  for name, leaf in tree.named_leaves(params):
    name = name.replace("/", ".").replace("kernel", "weight").replace("scale", "weight")
    layers = {name.replace("blocks", f"blocks.{i}"): part for i, part in enumerate(leaf)}
    for key, value in (layers if "blocks" in name else {name: leaf}).items():
      value = value.reshape(len(value), -1) if value.ndim == 3 and "qkv" in key else value
      if "patch_embed" in key and value.ndim == 2:
        value = value.reshape(4, 4, 3, 16).transpose(3, 2, 0, 1)
      tensors[key] = torch.from_numpy(np.array(value.T if value.ndim == 2 else value))
  return tensors


def test_loss_and_every_gradient_equal_pytorch(params, evaluate):
  batch = batch_of()
  noise = jax.vmap(lambda key: jax.random.uniform(key, (16,)))(random.example_keys(RNG, batch["index"]))
  reference = TorchMAE()
  reference.load_state_dict(torch_tensors(params))
  expected = reference(torch.from_numpy(batch["image"].transpose(0, 3, 1, 2)), torch.from_numpy(np.array(noise)))
  expected.backward()
  (loss, output), gradient = evaluate(params, batch)
  np.testing.assert_allclose(loss, expected.item(), rtol=1e-5)
  assert output.weight == 8 * 12 and output.state == {}
  gradients = torch_tensors(gradient)
  for name, parameter in reference.named_parameters():
    scale = float(parameter.grad.abs().max())
    np.testing.assert_allclose(gradients[name] / scale, parameter.grad / scale, rtol=1e-4, atol=1e-4, err_msg=name)


def test_loss_of_an_example_does_not_depend_on_its_place_or_the_mesh(params, evaluate):
  batch = batch_of()
  (loss, _), gradient = evaluate(params, batch)
  order = np.array([3, 1, 7, 5, 0, 2, 4, 6])
  np.testing.assert_allclose(evaluate(params, {k: v[order] for k, v in batch.items()})[0][0], loss, rtol=1e-5)
  mesh = sharding.make_mesh()
  with jax.set_mesh(mesh):
    sharded = jax.device_put(batch, sharding.batch_sharding(mesh))
    (other, _), other_gradient = evaluate(params, sharded)
  np.testing.assert_allclose(other, loss, rtol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), gradient, other_gradient)


def test_explained_variance_is_one_minus_the_share_of_the_mean_patch(params, evaluate):
  batch = batch_of()
  (loss, output), _ = evaluate(params, batch)
  target = np.asarray(normalize_patches(patchify(batch["image"], patch=4)))
  mask = np.asarray(OBJECTIVE.masking(RNG, batch["index"])[2]).astype(bool)
  left = np.mean((target - target.mean((0, 1)))[mask] ** 2)
  np.testing.assert_allclose(output.metrics["mae/explained_variance"], 1 - loss / left, rtol=1e-4)


def test_masks_have_one_size_and_follow_the_example():
  index = batch_of()["index"]
  keep_idx, restore_idx, mask = OBJECTIVE.masking(RNG, index)
  assert keep_idx.shape == (8, 4)
  np.testing.assert_array_equal(mask.sum(1), np.full(8, 12))
  np.testing.assert_array_equal(np.sort(restore_idx, 1), np.tile(np.arange(16), (8, 1)))
  np.testing.assert_array_equal(OBJECTIVE.masking(RNG, index[5:6])[2][0], mask[5])
  assert len({tuple(row) for row in np.asarray(mask)}) == 8


def test_encode_gives_features_for_evaluators(params):
  features = jax.jit(lambda p, b: OBJECTIVE.encode(p, {}, b))(params, batch_of(3))
  assert {name: leaf.shape for name, leaf in features.items()} == dict.fromkeys(("embedding", "cls", "mean"), (3, 16))


def test_pictures_keep_visible_pixels_and_grey_the_hidden(params):
  batch = batch_of(2)
  shown = jax.jit(lambda p, b: OBJECTIVE.show(p, {}, b, rng=RNG))(params, batch)
  (rows,) = shown.values()
  assert rows.shape == (2, 3, 16, 16, 3)
  original, masked, reconstruction = np.moveaxis(np.asarray(rows), 1, 0)
  np.testing.assert_array_equal(original, batch["image"])
  hidden = np.kron(np.asarray(OBJECTIVE.masking(RNG, batch["index"])[2]).reshape(2, 4, 4), np.ones((1, 4, 4)))[
    ..., None
  ]
  np.testing.assert_allclose(masked, original * (1 - hidden))
  np.testing.assert_allclose(reconstruction * (1 - hidden), masked, atol=1e-6)
  assert not np.allclose(reconstruction, masked, atol=1e-2)


def test_a_perfect_prediction_is_shown_as_the_original(params, monkeypatch):
  perfect = lambda self, params, images, *rest, **options: normalize_patches(patchify(images, patch=4))
  monkeypatch.setattr(MAE, "reconstruct", perfect)
  batch = batch_of(2)
  (rows,) = OBJECTIVE.show(params, {}, batch, rng=RNG).values()
  np.testing.assert_allclose(rows[:, 2], batch["image"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"mask_ratio": 1.0}, "mask_ratio: 1.0 keeps 0 of 16"),
    ({"decoder_heads": 3}, "decoder_heads=3"),
    ({"encoder": ResNet()}, "expected vit.ViT"),
  ],
)
def test_mistakes_fail_at_construction(options, message):
  with pytest.raises(UserError, match=message):
    MAE(**{"encoder": ViT(**ENCODER), "decoder_width": 8, "decoder_heads": 2, **options})


def test_smaller_pictures_are_as_to_a_model_made_for_them(params):
  """What a schedule of growing pictures needs: positions, masks and decoder follow the picture, no parameter does."""
  batch = batch_of(4)
  small = {**batch, "image": batch["image"][:, :8, :12]}
  made = dataclasses.replace(OBJECTIVE, encoder=OBJECTIVE.encoder.clone(image_size=8))
  square = {**batch, "image": batch["image"][:, :8, :8]}
  losses = jax.jit(
    lambda p: (
      [one.loss(p, {}, square, rng=RNG, step=0) for one in (OBJECTIVE, made)]
      + [OBJECTIVE.loss(p, {}, small, rng=RNG, step=0)]
    )
  )(params)
  assert losses[0].loss == losses[1].loss and losses[0].weight == 4 * 3
  assert losses[2].weight == 4 * 5  # of 2 x 3 patches one is kept
