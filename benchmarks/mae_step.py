"""One MAE training step on CPU: ssljax against plain PyTorch, side by side in one run.

    pip install -e ".[dev]" && python benchmarks/mae_step.py [--rounds=7] [--batch=64] [--compile]

ViT-Ti at 64 pixels, patch 8 (192 wide, 12 layers, 3 heads), decoder 128 wide, 4 layers, 4 heads; norm-pix, mask
0.75, AdamW. The PyTorch model is the paper's architecture in the straightforward way (fused qkv,
scaled_dot_product_attention, torch.optim.AdamW). Each contender is a process of its own that makes one step when asked;
a round asks each once, the next round in the opposite order. Ratios are taken inside a round: time of torch eager
float32 / time of the contender, so above 1 is faster than PyTorch.
"""

import argparse
import multiprocessing as mp
import statistics
import time

SIZE, PATCH, WIDTH, DEPTH, HEADS = 64, 8, 192, 12, 3
DECODER = dict(decoder_width=128, decoder_depth=4, decoder_heads=4)
CORES = 2


def serve(make, pipe):
  """Answers each message with the seconds of one step; the first answer is the seconds of the warm-up."""
  begun = time.perf_counter()
  step = make()
  for _ in range(3):
    step()
  pipe.send(time.perf_counter() - begun)
  while pipe.recv():
    begun = time.perf_counter()
    step()
    pipe.send(time.perf_counter() - begun)


def ssljax_step(batch, dtype, objective=None):
  """Returns a function that makes one whole training step: augmentation, gradients, AdamW, finite check."""
  from ssljax import runtime

  runtime.start(cpu_devices=CORES)
  import jax
  import numpy as np

  from ssljax import optim, rng, sharding
  from ssljax.augment.views import Views
  from ssljax.build import build
  from ssljax.training.state import create, initialiser, shardings
  from ssljax.training.step import make_step

  encoder = dict(name="vit.ViT", variant="Ti", patch=PATCH, image_size=SIZE, dtype=dtype)
  section, recipe, size = objective or (dict(name="mae.MAE", encoder=encoder, **DECODER), "none", SIZE)
  method = build(section, "objectives", where="objective")
  augment = Views(recipe=recipe, size=size, normalize="imagenet")
  transform = optim.adamw(learning_rate=1e-3, b2=0.95, weight_decay=0.05).transform
  mesh = sharding.make_mesh()
  place = sharding.batch_sharding(mesh)
  host = {
    "image": np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), dtype=np.uint8),
    "aspect": np.ones(batch, np.float32),
    "index": np.stack([np.zeros(batch), np.arange(batch)], axis=-1).astype(np.uint32),
  }
  with jax.set_mesh(mesh):
    given = jax.device_put(host, place)
    keys = jax.eval_shape(lambda: rng.example_keys(jax.random.key(0), host["index"]))
    init = initialiser(method, transform, jax.eval_shape(augment, keys, host))
    like = shardings(mesh, jax.eval_shape(init, jax.ShapeDtypeStruct((), np.uint32)), ((".*", "replicate"),))
    state = create(init, like, 0)
    jitted = jax.jit(make_step(method, augment, transform), donate_argnums=0)
    step = jitted.lower(like, given).compile()

  def once():
    nonlocal state
    state, metrics = step(state, given)
    return float(metrics["train/loss"])

  return once


def torch_step(batch, *, autocast, compiled):
  """Returns a function that makes one PyTorch step."""
  import torch
  from torch import nn
  from torch.nn import functional

  torch.set_num_threads(CORES)

  class Block(nn.Module):
    def __init__(self, width, heads):
      super().__init__()
      self.heads = heads
      self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
      self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
      self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
      b, n, d = x.shape
      q, k, v = self.qkv(self.norm1(x)).reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
      attended = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d)
      x = x + self.proj(attended)
      return x + self.fc2(functional.gelu(self.fc1(self.norm2(x))))

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


def measure(contenders, rounds):
  """Returns {name: [seconds of a step in each round]}; the first contender is the base of the ratios."""
  context = mp.get_context("spawn")
  running = {}
  for name, (function, arguments) in contenders.items():
    mine, theirs = context.Pipe()
    process = context.Process(target=_work, args=(function, arguments, theirs), daemon=True)
    process.start()
    print(f"{name:34} ready after {mine.recv():5.1f} s", flush=True)
    running[name] = (process, mine)
  seconds = {name: [] for name in contenders}
  for number in range(rounds):
    for name in list(running)[:: 1 if number % 2 == 0 else -1]:
      pipe = running[name][1]
      pipe.send(True)
      seconds[name].append(pipe.recv())
  for process, pipe in running.values():
    pipe.send(False)
    process.join()
  return seconds


def _work(function, arguments, pipe):
  serve(lambda: function(**arguments), pipe)


def show(seconds, batch):
  """Prints median and best step, examples/s, and the ratio to the first contender with its spread."""
  base = next(iter(seconds.values()))
  print(f"{'contender':34} {'median ms':>9} {'best ms':>8} {'ex/s':>6}  ratio [lowest-highest]")
  for name, times in seconds.items():
    ratios = sorted(b / t for b, t in zip(base, times, strict=True))
    median = statistics.median(times)
    print(
      f"{name:34} {1e3 * median:9.0f} {1e3 * min(times):8.0f} {batch / median:6.0f}  "
      f"{statistics.median(ratios):.2f} [{ratios[0]:.2f}-{ratios[-1]:.2f}]"
    )


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument("--batch", type=int, default=64)
  parser.add_argument("--rounds", type=int, default=7)
  parser.add_argument("--compile", action="store_true", help="torch.compile too (one to two minutes to start)")
  options = parser.parse_args()
  batch = options.batch
  contenders = {
    "torch eager float32": (torch_step, dict(batch=batch, autocast=False, compiled=False)),
    "torch autocast bfloat16": (torch_step, dict(batch=batch, autocast=True, compiled=False)),
    "ssljax float32": (ssljax_step, dict(batch=batch, dtype="float32")),
    "ssljax bfloat16 operands": (ssljax_step, dict(batch=batch, dtype="bfloat16")),
  }
  if options.compile:
    contenders["torch.compile float32"] = (torch_step, dict(batch=batch, autocast=False, compiled=True))
  show(measure(contenders, options.rounds), batch)


if __name__ == "__main__":
  main()
