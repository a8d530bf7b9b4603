"""Memory and traffic of the contrastive losses, read off the compiled programs: dense, gather and ring.

    pip install -e . && python benchmarks/contrastive_memory.py [--width=128] [--chunk=1024]

Forward and backward together, on 1, 2, 4 and 8 fake CPU devices: once with 512 examples a device, once with 4096 in
all; InfoNCE against a queue of 65536 that every device holds, without a gradient for it. Nothing is run.
"temporaries" is what the compiler sets aside on one device beside arguments and results; "moved" what one device
sends: a collective's bytes times the turns of the loop it stands in, for an all-gather or reduce-scatter the (P-1)/P
of the whole that go out, for an all-reduce twice that.
"""

import argparse
import os
import re

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp

from ssljax import sharding
from ssljax.losses import contrastive

WORLDS, EACH, TOGETHER, QUEUE = (1, 2, 4, 8), 512, 4096, 65536
WAYS = ("dense", "gather", "ring")
LOSSES = {
  "nt_xent": (contrastive.nt_xent, dict(temperature=0.1)),
  "info_nce": (contrastive.info_nce, dict(temperature=0.1)),
  "softmax_loss": (contrastive.softmax_loss, dict(scale=10.0)),
  "sigmoid_loss": (contrastive.sigmoid_loss, dict(scale=10.0, bias=-10.0)),
}
SENT = {
  "collective-permute": lambda result, world: result,
  "all-gather": lambda result, world: result * (world - 1) / world,
  "reduce-scatter": lambda result, world: result * (world - 1),
  "all-reduce": lambda result, world: 2 * result * (world - 1) / world,
  "all-to-all": lambda result, world: result * (world - 1) / world,
}
BYTES = {"f32": 4, "s32": 4, "u32": 4, "pred": 1}


def compiled(loss, pairs, batch, world, options):
  """The value and gradients of a loss, compiled for arrays cut over `world` devices."""
  function, keywords = LOSSES[loss]
  extra = {} if pairs == "dense" else {"chunk": options.chunk}
  total = lambda a, b, keywords, queue: function(a, b, *queue, **keywords, pairs=pairs, **extra)
  mesh = sharding.make_mesh(devices=jax.devices()[:world])
  with jax.set_mesh(mesh):
    rows = jax.ShapeDtypeStruct((batch, options.width), jnp.float32, sharding=sharding.batch_sharding(mesh))
    whole = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding.replicated(mesh))
    queue = (whole(QUEUE, options.width),) if loss == "info_nce" else ()
    numbers = {key: whole() for key in keywords}
    return jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2))).lower(rows, rows, numbers, queue).compile()


def computations(text):
  """{name: lines} of a compiled program."""
  found, name = {}, None
  for line in text.splitlines():
    opening = re.match(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$", line)
    name = opening.group(1) if opening else name
    found.setdefault(name, []).append(line)
  return found


def size(shapes):
  """Bytes of all arrays in a piece of program text."""
  total = 0
  for kind, dims in re.findall(r"(\w+)\[([\d,]*)\]", shapes):
    count = BYTES[kind]
    for n in filter(None, dims.split(",")):
      count *= int(n)
    total += count
  return total


def moved(text, world):
  """Bytes one device sends."""
  parts = computations(text)
  entry = re.search(r"^ENTRY %?([\w.\-]+)", text, re.MULTILINE).group(1)

  def within(name):
    total = 0
    for line in parts[name]:
      operation = re.search(r"= (\([^)]*\)|\S+) ([\w\-]+)\(", line)
      if not operation:
        continue
      kind = operation.group(2).removesuffix("-start")
      if kind in SENT:
        total += SENT[kind](size(operation.group(1)), world)
      if kind == "while":
        turns = re.search(r'known_trip_count":\{"n":"(\d+)"', line).group(1)
        total += int(turns) * within(re.search(r"body=%?([\w.\-]+)", line).group(1))
      else:
        called = re.search(r"(?:calls|to_apply)=%?([\w.\-]+)", line)
        total += within(called.group(1)) if kind in ("call", "fusion") and called else 0
    return total

  return within(entry)


def cell(program, world):
  temporaries = program.memory_analysis().temp_size_in_bytes
  return f"{temporaries / 2**20:.2f} | {moved(program.as_text(), world) / 2**20:.2f}"


def table(title, batches, options):
  print(f"\n{title}\n")
  print("| loss | devices | batch | " + " | ".join(f"{way}: temporaries | moved" for way in WAYS) + " |")
  print("|" + "---|" * (3 + 2 * len(WAYS)))
  for loss in LOSSES:
    for world, batch in zip(WORLDS, batches, strict=True):
      cells = [cell(compiled(loss, way, batch, world, options), world) for way in WAYS]
      print(f"| {loss} | {world} | {batch} | " + " | ".join(cells) + " |", flush=True)


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument("--width", type=int, default=128)
  parser.add_argument("--chunk", type=int, default=1024)
  options = parser.parse_args()
  jax.config.update("jax_num_cpu_devices", max(WORLDS))
  table(f"MiB a device, {EACH} examples a device", [EACH * world for world in WORLDS], options)
  table(f"MiB a device, {TOGETHER} examples in all", [TOGETHER] * len(WORLDS), options)


if __name__ == "__main__":
  main()
