"""One T5.1.1 training step on CPU: ssljax against Hugging Face transformers, side by side in one run.

    pip install -e ".[dev]" && python benchmarks/t5_step.py [--rounds=7] [--batch=16] [--compile]

256 input and 64 target tokens, 256 wide, 4 + 4 layers, 4 heads of 64, gated GELU of 704, 32,128 ids, tied head divided
by sqrt(width), no dropout, AdamW, float32 loss. (The logits of an unscaled random head are so large that PyTorch spends
its time on denormals.) ssljax's step also reads segments, adds the z-loss, counts bits per byte for each denoiser and
checks for finiteness. How it is measured: side_by_side.py.
"""

import argparse

import numpy as np
from side_by_side import CORES, measure, show, ssljax_step

IDS, INPUTS, TARGETS = 32_128, 256, 64
WIDTH, DEPTH, HEADS, HEAD_WIDTH, HIDDEN = 256, 4, 4, 64, 704


def objective(dtype):
  size = dict(width=WIDTH, depth=DEPTH, heads=HEADS, head_width=HEAD_WIDTH, hidden=HIDDEN)
  return dict(name="ul2.UL2", model=dict(name="t5.T5", vocab_size=IDS, head="tied", dtype=dtype, **size))


def text(batch):
  """Returns a batch of full rows of one example each, without the stream's index."""
  generator, host = np.random.default_rng(0), {}
  for side, length in (("input", INPUTS), ("target", TARGETS)):
    host[f"{side}s"] = generator.integers(1, IDS, (batch, length), dtype=np.int32)
    host[f"{side}_segments"] = np.ones((batch, length), np.int32)
    host[f"{side}_positions"] = np.tile(np.arange(length, dtype=np.int32), (batch, 1))
  return host | {key: np.ones((batch, TARGETS), np.uint8) for key in ("target_group", "target_bytes")}


def torch_step(batch, *, autocast, compiled):
  """Returns a function that makes one PyTorch step."""
  import torch
  from transformers import T5Config, T5ForConditionalGeneration

  torch.set_num_threads(CORES)
  torch.manual_seed(0)
  config = T5Config(
    vocab_size=IDS, d_model=WIDTH, d_kv=HEAD_WIDTH, d_ff=HIDDEN, num_layers=DEPTH, num_heads=HEADS,
    feed_forward_proj="gated-gelu", tie_word_embeddings=True, dropout_rate=0.0, use_cache=False,
    decoder_start_token_id=0,
  )  # fmt: skip
  model = T5ForConditionalGeneration(config).train()
  forward = torch.compile(model) if compiled else model
  optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05)
  host = text(batch)
  inputs, labels = (torch.from_numpy(host[key]).long() for key in ("inputs", "targets"))

  def once():
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
      loss = forward(input_ids=inputs, labels=labels).loss
    loss.backward()
    optimizer.step()
    return loss.item()

  return once


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--batch", type=int, default=16)
  parser.add_argument("--rounds", type=int, default=7)
  parser.add_argument("--compile", action="store_true", help="torch.compile too (minutes to start)")
  options = parser.parse_args()
  batch = options.batch
  contenders = {
    "transformers eager float32": (torch_step, dict(batch=batch, autocast=False, compiled=False)),
    "transformers autocast bfloat16": (torch_step, dict(batch=batch, autocast=True, compiled=False)),
    "ssljax float32": (ssljax_step, dict(objective=objective("float32"), host=text(batch))),
    "ssljax bfloat16 operands": (ssljax_step, dict(objective=objective("bfloat16"), host=text(batch))),
  }
  if options.compile:
    contenders["transformers compile float32"] = (torch_step, dict(batch=batch, autocast=False, compiled=True))
  show(measure(contenders, options.rounds), batch)


if __name__ == "__main__":
  main()
