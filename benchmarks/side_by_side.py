"""Training steps of several contenders, side by side in one run.

Each contender is a process of its own. When asked it makes one step that is not timed, then three that are, as they
follow each other in a run; a round asks each once, the next round in the opposite order. Ratios are taken inside a
round: time of the first contender / time of the contender, so above 1 is faster than the first. So the machine's speed
may drift and the ratios still hold.
"""

import multiprocessing as mp
import os
import statistics
import time

from ssljax import runtime

CORES = 2
TURN = 3  # timed steps in a row


def serve(make, pipe):
  """Answers each message with the mean seconds of a step; the first answer is the seconds of the start."""
  begun = time.perf_counter()
  step = make()
  for _ in range(3):
    step()
  pipe.send(time.perf_counter() - begun)
  while pipe.recv():
    step()  # the pages and caches an idle process lost come back here
    begun = time.perf_counter()
    for _ in range(TURN):
      step()
    pipe.send((time.perf_counter() - begun) / TURN)


def pictures(size, batch):
  """Returns a batch of random pictures, without the stream's index."""
  import numpy as np

  images = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
  return {"image": images, "aspect": np.ones(batch, np.float32)}


def ssljax_step(objective, host, augment=None):
  """Returns a function that makes one whole training step: augmentation, gradients, AdamW, finite check.

  `host` is a batch's arrays without its index; `augment` the arguments of `Views`, None for no augmentation.
  """
  runtime.start(cpu_devices=CORES)
  import jax
  import numpy as np

  from ssljax import optim, rng, sharding
  from ssljax.augment.identity import Identity
  from ssljax.augment.views import Views
  from ssljax.build import build
  from ssljax.training.state import create, initialiser, shardings
  from ssljax.training.step import make_step

  method = build(objective, "objectives", where="objective")
  augment = Views(**augment) if augment else Identity()
  transform = optim.adamw(learning_rate=1e-3, b2=0.95, weight_decay=0.05).transform
  mesh = sharding.make_mesh()
  place = sharding.batch_sharding(mesh)
  batch = len(next(iter(host.values())))
  host = host | {"index": np.stack([np.zeros(batch), np.arange(batch)], axis=-1).astype(np.uint32)}
  with jax.set_mesh(mesh):
    given = jax.device_put(host, place)
    keys = jax.eval_shape(lambda: rng.example_keys(jax.random.key(0), host["index"]))
    init = initialiser(method, transform, jax.eval_shape(augment, keys, host))
    like = shardings(mesh, jax.eval_shape(init, jax.ShapeDtypeStruct((), np.uint32)), ((".*", "replicate"),))
    state = create(init, like, 0)
    where = (jax.tree.map(lambda leaf: leaf.sharding, like), sharding.replicated(mesh))
    jitted = jax.jit(make_step(method, augment, transform), donate_argnums=0, out_shardings=where)
    step = jitted.lower(like, given).compile()

  def once():
    nonlocal state
    state, metrics = step(state, given)
    return float(metrics["train/loss"])

  return once


def measure(contenders, rounds):
  """Returns {name: [seconds of a step in each round]}; the first contender is the base of the ratios."""
  if runtime.wants_huge_pages():  # glibc reads it when a contender's process starts: PyTorch's have them too
    os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
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
