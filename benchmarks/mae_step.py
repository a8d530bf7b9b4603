"""One MAE training step on CPU: ssljax against plain PyTorch, side by side in one run.

    pip install -e ".[dev]" && python benchmarks/mae_step.py [--rounds=7] [--batch=64] [--compile]

ViT-Ti at 64 pixels, patch 8 (192 wide, 12 layers, 3 heads), decoder 128 wide, 4 layers, 4 heads; norm-pix, mask
0.75, AdamW. The PyTorch model is the paper's architecture in the straightforward way (fused qkv,
scaled_dot_product_attention, torch.optim.AdamW). How it is measured: side_by_side.py.
"""

import argparse

from side_by_side import CORES, measure, pictures, show, ssljax_step

SIZE, PATCH, WIDTH, DEPTH, HEADS = 64, 8, 192, 12, 3
DECODER = dict(decoder_width=128, decoder_depth=4, decoder_heads=4)


def objective(dtype):
  encoder = dict(name="vit.ViT", variant="Ti", patch=PATCH, image_size=SIZE, dtype=dtype)
  return dict(name="mae.MAE", encoder=encoder, **DECODER)


def torch_step(batch, *, autocast, compiled):
  """Returns a function that makes one PyTorch step."""
  import torch
  from torch import nn
  from torch_block import Block

  torch.set_num_threads(CORES)

  class MAE(nn.Module):
    def __init__(self):
      super().__init__()
      n, inner = (SIZE // PATCH) ** 2, DECODER["decoder_width"]
      self.embed = nn.Conv2d(3, WIDTH, PATCH, PATCH)
      self.cls, self.mask = nn.Parameter(torch.zeros(1, 1, WIDTH)), nn.Parameter(torch.zeros(1, 1, inner))
      self.pos = nn.Parameter(torch.randn(1, n + 1, WIDTH) * 0.02, requires_grad=False)
      self.decoder_pos = nn.Parameter(torch.randn(1, n + 1, inner) * 0.02, requires_grad=False)
      self.blocks = nn.Sequential(*(Block(WIDTH, HEADS) for _ in range(DEPTH)))
      self.norm, self.decoder_norm = nn.LayerNorm(WIDTH, eps=1e-6), nn.LayerNorm(inner, eps=1e-6)
      self.decoder_embed = nn.Linear(WIDTH, inner)
      self.decoder = nn.Sequential(*(Block(inner, DECODER["decoder_heads"]) for _ in range(DECODER["decoder_depth"])))
      self.pred = nn.Linear(inner, PATCH**2 * 3)

    def forward(self, images):
      b = images.shape[0]
      x = self.embed(images).flatten(2).transpose(1, 2) + self.pos[:, 1:]
      n, kept = x.shape[1], x.shape[1] // 4
      shuffle = torch.rand(b, n).argsort(1)
      restore = shuffle.argsort(1)
      x = x.gather(1, shuffle[:, :kept, None].expand(-1, -1, WIDTH))
      x = torch.cat([(self.cls + self.pos[:, :1]).expand(b, -1, -1), x], 1)
      x = self.decoder_embed(self.norm(self.blocks(x)))
      tokens = torch.cat([x[:, 1:], self.mask.expand(b, n - kept, -1)], 1)
      tokens = tokens.gather(1, restore[:, :, None].expand(-1, -1, x.shape[2]))
      x = torch.cat([x[:, :1], tokens], 1) + self.decoder_pos
      prediction = self.pred(self.decoder_norm(self.decoder(x)))[:, 1:]
      side = SIZE // PATCH
      target = images.reshape(b, 3, side, PATCH, side, PATCH).permute(0, 2, 4, 3, 5, 1).reshape(b, n, -1)
      target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6) ** 0.5
      hidden = (restore >= kept).float()
      return (((prediction.float() - target) ** 2).mean(-1) * hidden).sum() / hidden.sum()

  torch.manual_seed(0)
  model = MAE()
  forward = torch.compile(model) if compiled else model
  decayed = [p for p in model.parameters() if p.requires_grad]
  optimizer = torch.optim.AdamW(decayed, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05)
  images = torch.randn(batch, 3, SIZE, SIZE)

  def once():
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
      loss = forward(images)
    loss.backward()
    optimizer.step()
    return loss.item()

  return once


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument("--batch", type=int, default=64)
  parser.add_argument("--rounds", type=int, default=7)
  parser.add_argument("--compile", action="store_true", help="torch.compile too (one to two minutes to start)")
  options = parser.parse_args()
  batch = options.batch
  ours = dict(host=pictures(SIZE, batch), augment=dict(recipe="none", size=SIZE, normalize="imagenet"))
  contenders = {
    "torch eager float32": (torch_step, dict(batch=batch, autocast=False, compiled=False)),
    "torch autocast bfloat16": (torch_step, dict(batch=batch, autocast=True, compiled=False)),
    "ssljax float32": (ssljax_step, dict(objective=objective("float32"), **ours)),
    "ssljax bfloat16 operands": (ssljax_step, dict(objective=objective("bfloat16"), **ours)),
  }
  if options.compile:
    contenders["torch.compile float32"] = (torch_step, dict(batch=batch, autocast=False, compiled=True))
  show(measure(contenders, options.rounds), batch)


if __name__ == "__main__":
  main()
