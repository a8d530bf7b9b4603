"""The same numbers as a ResNet written from the paper and torchvision's documentation in plain PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

from ssljax import tree
from ssljax.errors import UserError
from ssljax.models.resnet import ResNet


class TorchResidual(nn.Module):
  def __init__(self, inputs, width, expansion, stride):
    super().__init__()
    outputs = width * expansion
    plan = [(3, stride, width), (3, 1, outputs)]
    if expansion == 4:
      plan = [(1, 1, width), (3, stride, width), (1, 1, outputs)]
    self.count, channels = len(plan), inputs
    for n, (size, step, features) in enumerate(plan, start=1):
      setattr(self, f"conv{n}", nn.Conv2d(channels, features, size, step, size // 2, bias=False))
      setattr(self, f"bn{n}", nn.BatchNorm2d(features))
      channels = features
    self.downsample = nn.Sequential()
    if stride != 1 or inputs != outputs:
      self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

  def forward(self, x):
    y = x
    for n in range(1, self.count + 1):
      y = getattr(self, f"bn{n}")(getattr(self, f"conv{n}")(y))
      y = torch.relu(y) if n < self.count else y
    return torch.relu(y + self.downsample(x))


class TorchResNet(nn.Module):
  def __init__(self, depths, expansion, stem):
    super().__init__()
    self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False) if stem == "imagenet" else nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    self.bn1 = nn.BatchNorm2d(64)
    self.pool = nn.MaxPool2d(3, 2, 1) if stem == "imagenet" else nn.Identity()
    inputs = 64
    for n, depth in enumerate(depths):
      width = 64 * 2**n
      blocks = []
      for b in range(depth):
        blocks.append(TorchResidual(inputs, width, expansion, 2 if n and not b else 1))
        inputs = width * expansion
      setattr(self, f"layer{n + 1}", nn.Sequential(*blocks))

  def forward(self, x):
    x = self.pool(torch.relu(self.bn1(self.conv1(x))))
    for n in range(1, 5):
      x = getattr(self, f"layer{n}")(x)
    return x.mean((2, 3))


LAST = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def load(module, variables):
  state = {}
  for name, leaf in tree.named_leaves(variables["params"]) + tree.named_leaves(variables["batch_stats"]):
    *path, last = name.split("/")
    leaf = leaf.transpose(3, 2, 0, 1) if last == "kernel" else leaf
    state[".".join([*path, LAST[last]])] = torch.from_numpy(np.array(leaf))
  missing, unexpected = module.load_state_dict(state, strict=False)
  assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing)


def variables_of(model, images, random_variables):
  variables = random_variables(model, images, scale=0.05)
  positive = lambda name, leaf: leaf + 1.0 if name.endswith(("scale", "var")) else leaf
  return tree.map_named(positive, variables)


@pytest.mark.parametrize(
  ("depth", "stem", "plan", "side", "mode"),
  [
    (18, "cifar", ((2, 2, 2, 2), 1), 10, "train"),
    (18, "imagenet", ((2, 2, 2, 2), 1), 37, "eval"),
    (50, "imagenet", ((3, 4, 6, 3), 4), 32, "eval"),
  ],
)
def test_forward_equals_pytorch(depth, stem, plan, side, mode, random_variables):
  images = np.random.default_rng(3).normal(size=(2, side, side, 3)).astype("float32")
  model = ResNet(depth=depth, stem=stem)
  variables = variables_of(model, images, random_variables)
  reference = TorchResNet(*plan, stem)
  load(reference, variables)
  reference.train(mode == "train")
  run = jax.jit(lambda v, x: model.apply(v, x, train=mode == "train", mutable=["batch_stats"]))
  outputs, moved = run(variables, images)
  with torch.no_grad():
    expected = reference(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()
  scale = np.abs(expected).max()
  np.testing.assert_allclose(outputs["embedding"] / scale, expected / scale, rtol=1e-3, atol=1e-4)
  np.testing.assert_allclose(outputs["tokens"].mean(1), outputs["embedding"], rtol=1e-5)
  mean = moved["batch_stats"]["layer1"]["0"]["bn1"]["mean"]
  np.testing.assert_allclose(mean, dict(reference.named_buffers())["layer1.0.bn1.running_mean"], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("depth", "count"), [(18, 11_176_512), (50, 23_508_032)])
def test_parameter_counts_are_those_of_torchvision(depth, count):
  model = ResNet(depth=depth)
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3))))
  assert tree.size(shapes["params"]) == count
  assert set(shapes) == {"params", "batch_stats"}


def test_width_multiplier_and_features():
  model = ResNet(depth=18, width_multiplier=2, stem="cifar")
  output = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), jnp.zeros((1, 32, 32, 3))))[0]
  assert output["embedding"].shape == (1, 1024) and model.features == 1024
  assert output["tokens"].shape == (1, 16, 1024)


@pytest.mark.parametrize(("last_scale", "value"), [("zero", 0.0), ("one", 1.0)])
def test_last_scale(last_scale, value):
  from ssljax.models.resnet import Residual

  block = Residual(4, 1, 1, last_scale, "float32")
  x = jax.random.normal(jax.random.key(1), (2, 4, 4, 4))
  out, variables = jax.jit(lambda: block.init_with_output(jax.random.key(0), x, train=False))()
  assert np.all(variables["params"]["bn2"]["scale"] == value) and np.all(variables["params"]["bn1"]["scale"] == 1)
  assert np.allclose(out, np.maximum(x, 0)) == (last_scale == "zero")


def test_mistakes_are_named():
  with pytest.raises(UserError, match="depth 34"):
    ResNet(depth=34)
  with pytest.raises(UserError, match="visible patches"):
    ResNet().init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), keep=jnp.zeros((1, 2), int))
