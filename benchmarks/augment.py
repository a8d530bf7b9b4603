"""Augmentation speed on one core: ssljax against torchvision's v1 transforms on PIL images, side by side.

    python benchmarks/augment.py [--batch=128] [--rounds=15]

The SimCLR pipeline, 96x96 uint8 to 64x64 float: random resized crop (bicubic), flip, jitter (.8, .8, .8, .2) p .8,
gray p .2, blur of 7 taps p .5. Both draw new random numbers for every picture. The process is pinned to one core;
a round runs every contender once, the next round in the opposite order; times are CPU seconds of the process, so that
other work on the machine takes nothing away. Needs torch, torchvision and pillow; without them only ssljax is timed.
"""

import argparse
import contextlib
import os
import statistics
import time
from collections.abc import Callable

import numpy as np

from ssljax import runtime

CANVAS, SIZE = 96, 64
INSTALL = "pip install torch==2.13.0 pillow && pip install --no-deps torchvision==0.28.0"


def photographs(batch: int) -> np.ndarray:
  """Returns smooth pictures with edges, uint8[B,96,96,3]: hue and blur cost the same on any content."""
  generator = np.random.default_rng(0)
  coarse = generator.integers(0, 256, (batch, 12, 12, 3), dtype=np.uint8)
  return coarse.repeat(CANVAS // 12, 1).repeat(CANVAS // 12, 2)


def ssljax_contender(images: np.ndarray, dtype: str) -> Callable[[], object]:
  """Returns a call that makes the two views of half a batch: as many pictures as the other contenders make."""
  import jax

  from ssljax import rng
  from ssljax.augment.views import Views

  pairs = len(images) // 2
  augment = Views(recipe="simclr", size=SIZE, dtype=dtype)

  @jax.jit
  def run(seed, images, index):
    keys = rng.example_keys(jax.random.key(seed), index)
    return augment(keys, {"image": images, "aspect": np.ones(pairs, np.float32)})["views"]

  index = np.stack([np.zeros(pairs, np.uint32), np.arange(pairs, dtype=np.uint32)], 1)
  seeds = iter(range(1 << 30))
  return lambda: run(next(seeds), images[:pairs], index).block_until_ready()


def torchvision_contender(images: np.ndarray) -> Callable[[], object]:
  import torch

  # The wheel on PyPI may not find its compiled operators beside a CPU build of torch; the transforms need none.
  library = torch.library.Library("torchvision", "FRAGMENT")
  for operator in ("nms", "qnms"):
    with contextlib.suppress(RuntimeError):
      library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
  from PIL import Image
  from torchvision import transforms

  torch.set_num_threads(1)
  augment = transforms.Compose(
    [
      transforms.RandomResizedCrop(SIZE, (0.08, 1.0), interpolation=transforms.InterpolationMode.BICUBIC),
      transforms.RandomHorizontalFlip(),
      transforms.RandomApply([transforms.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8),
      transforms.RandomGrayscale(0.2),
      transforms.RandomApply([transforms.GaussianBlur(7, (0.1, 2.0))], p=0.5),
      transforms.ToTensor(),
    ]
  )
  pictures = [Image.fromarray(image) for image in images]
  return lambda: torch.stack([augment(picture) for picture in pictures])


def contenders(images: np.ndarray) -> dict[str, Callable[[], object]]:
  """Returns what is timed, the base of the ratios first."""
  found = {}
  try:
    found["torchvision v1 on PIL"] = torchvision_contender(images)
  except (ImportError, RuntimeError) as error:
    print(f"torchvision is not timed ({error}): {INSTALL}")
  found["ssljax float32"] = ssljax_contender(images, "float32")
  found["ssljax bfloat16"] = ssljax_contender(images, "bfloat16")
  return found


def seconds(call: Callable[[], object]) -> float:
  start = time.process_time()
  call()
  return time.process_time() - start


def main() -> None:
  runtime.use_huge_pages()  # as the command line does; both contenders have them
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--batch", type=int, default=128)
  parser.add_argument("--rounds", type=int, default=15)
  options = parser.parse_args()
  os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
  os.environ["JAX_PLATFORMS"] = "cpu"
  runtime.keep_memory()
  calls = contenders(photographs(options.batch))
  show(measure(calls, rounds=options.rounds), pictures=options.batch)


def measure(calls: dict[str, Callable[[], object]], *, rounds: int) -> dict[str, list[float]]:
  """Returns the seconds of every contender, one per round, after two calls that are not counted."""
  for call in (*calls.values(), *calls.values()):
    call()
  times: dict[str, list[float]] = {name: [] for name in calls}
  for turn in range(rounds):
    for name in list(calls) if turn % 2 == 0 else reversed(calls):
      times[name].append(seconds(calls[name]))
  return times


def show(times: dict[str, list[float]], *, pictures: int) -> None:
  base = next(iter(times.values()))
  print(f"\n{'':24}{'images/s/core':>14}{'microseconds':>14}{'ratio':>8}   over {len(base)} rounds")
  for name, taken in times.items():
    ratios = [a / b for a, b in zip(base, taken, strict=True)]
    median = statistics.median(taken) / pictures
    spread = f"[{min(ratios):.2f} to {max(ratios):.2f}]"
    print(f"{name:24}{1 / median:14.0f}{median * 1e6:14.0f}{statistics.median(ratios):8.2f}   {spread}")


if __name__ == "__main__":
  main()
