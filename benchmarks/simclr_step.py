"""One SimCLR training step on CPU: ssljax against plain PyTorch, side by side in one run.

    pip install -e ".[dev]" && python benchmarks/simclr_step.py [--rounds=5] [--batch=64] [--encoder=vit|resnet]

32 pixels, `batch` pairs a step, NT-Xent at 0.5, AdamW; a ViT-Ti of patch 4, or a ResNet-18 with the CIFAR stem.
ssljax's step includes making both views on the device; PyTorch's starts from ready views. See side_by_side.py.
"""

import argparse

from side_by_side import CORES, measure, pictures, show, ssljax_step

SIZE, PATCH, OUT = 32, 4, 128
ENCODERS = {
  "vit": dict(name="vit.ViT", variant="Ti", patch=PATCH, image_size=SIZE, pooling="mean"),
  "resnet": dict(name="resnet.ResNet", depth=18, stem="cifar"),
}


def objective(encoder, dtype):
  section = ENCODERS[encoder] | dict(dtype=dtype)
  return dict(name="simclr.SimCLR", encoder=section, projector_out=OUT, projector_layers=2, temperature=0.5)


def torch_step(batch, encoder, *, autocast):
  """Returns a function that makes one PyTorch step."""
  import torch
  from torch import nn
  from torch.nn import functional
  from torch_block import Block

  torch.set_num_threads(CORES)
  torch.manual_seed(0)

  class ViT(nn.Module):
    width = 192

    def __init__(self):
      super().__init__()
      self.embed = nn.Conv2d(3, self.width, PATCH, PATCH)
      self.cls = nn.Parameter(torch.zeros(1, 1, self.width))
      self.pos = nn.Parameter(torch.randn(1, (SIZE // PATCH) ** 2 + 1, self.width) * 0.02, requires_grad=False)
      self.blocks = nn.Sequential(*(Block(self.width, 3) for _ in range(12)))
      self.norm = nn.LayerNorm(self.width, eps=1e-6)

    def forward(self, images):
      x = self.embed(images).flatten(2).transpose(1, 2)
      x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.pos
      return self.norm(self.blocks(x))[:, 1:].mean(1)

  class Residual(nn.Module):
    def __init__(self, before, width, stride):
      super().__init__()
      self.conv1, self.bn1 = nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
      self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
      same = before == width and stride == 1
      shortcut = nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))
      self.shortcut = nn.Identity() if same else shortcut

    def forward(self, x):
      y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
      return functional.relu(y + self.shortcut(x))

  class ResNet(nn.Module):
    width = 512

    def __init__(self):
      super().__init__()
      self.stem = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
      plan = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1)]
      plan += [(128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1)]
      self.blocks = nn.Sequential(*(Residual(*row) for row in plan))

    def forward(self, images):
      return self.blocks(self.stem(images)).mean((2, 3))

  body = {"vit": ViT, "resnet": ResNet}[encoder]()
  head = nn.Sequential(
    nn.Linear(body.width, body.width, bias=False), nn.BatchNorm1d(body.width), nn.ReLU(),
    nn.Linear(body.width, OUT, bias=False), nn.BatchNorm1d(OUT),
  )  # fmt: skip
  model = nn.Sequential(body, head)
  optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.05)
  images = torch.randn(2 * batch, 3, SIZE, SIZE)
  partner = (torch.arange(2 * batch) + batch) % (2 * batch)

  def once():
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
      z = functional.normalize(model(images).float(), dim=1)
    logits = (z @ z.T / 0.5).fill_diagonal_(float("-inf"))
    loss = functional.cross_entropy(logits, partner)
    loss.backward()
    optimizer.step()
    return loss.item()

  return once


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument("--batch", type=int, default=64)
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--encoder", choices=sorted(ENCODERS), default="vit")
  options = parser.parse_args()
  batch, encoder = options.batch, options.encoder
  ours = dict(host=pictures(SIZE, batch), augment=dict(recipe="simclr_cifar", size=SIZE, normalize="imagenet"))
  contenders = {
    "torch eager float32": (torch_step, dict(batch=batch, encoder=encoder, autocast=False)),
    "torch autocast bfloat16": (torch_step, dict(batch=batch, encoder=encoder, autocast=True)),
    "ssljax float32": (ssljax_step, dict(objective=objective(encoder, "float32"), **ours)),
    "ssljax bfloat16 operands": (ssljax_step, dict(objective=objective(encoder, "bfloat16"), **ours)),
  }
  show(measure(contenders, options.rounds), batch)


if __name__ == "__main__":
  main()
