"""Span corruption and packing on one core: ssljax against what one would write with grain, side by side in one run.

    pip install -e ".[dev]" && python benchmarks/denoising.py [--rounds=7]

Corruption: 568 tokens to 512 + 114, 15 % hidden, spans of 3, batches of 64, both inside of a grain pipeline. The other
side draws a mask and builds inputs and targets for one example at a time in NumPy, as Hugging Face's T5 example script
does, then batches. Packing: 20,000 documents of log-normal length into rows of 512 with segment ids and positions,
against grain's FirstFitPackIterDataset with 64 bins. Ratios are taken inside a round, the order turns around with each
round; the seconds are those of the processor.
"""

import argparse
import os
import statistics
import time
import types

import numpy as np

TOKENS, INPUTS, TARGETS, BATCH, ROW = 568, 512, 114, 64, 512


def one_example(tokens, generator):
  """Returns inputs and targets of one example, a NumPy transcription of the T5 functions, unvectorised."""
  noise = round(TOKENS * 0.15)
  spans = round(noise / 3)

  def segment(total):
    first = np.zeros(total - 1, np.int64)
    first[: spans - 1] = 1
    generator.shuffle(first)
    return np.bincount(np.cumsum(np.append(0, first)), minlength=spans)

  lengths = np.stack([segment(TOKENS - noise), segment(noise)], axis=1).ravel()
  starts = np.zeros(TOKENS, np.int64)
  starts[np.cumsum(lengths)[:-1]] = 1
  mask = np.cumsum(starts) % 2 == 1

  def with_sentinels(hidden):
    first = hidden & ~np.append(False, hidden[:-1])
    ids = np.where(first, 32_100 - np.cumsum(first), tokens)
    return np.append(ids[first | ~hidden], 1).astype(np.int32)

  return {"inputs": with_sentinels(mask), "targets": with_sentinels(~mask)}


def stream(documents, mixture, layout, lengths, batch):
  """Returns ssljax's stream over token arrays."""
  from ssljax.data.mixture import Mixture, named
  from ssljax.data.text_stream import TextStream
  from ssljax.data.tokenizer import open_tokenizer
  from ssljax.data.vocabulary import Vocabulary

  mixed = Mixture(named(mixture), layout, *lengths, "absent")
  store = types.SimpleNamespace(
    tokens=np.concatenate(documents).astype(np.uint16), offsets=np.append(0, np.cumsum([len(d) for d in documents]))
  )
  vocabulary = Vocabulary(open_tokenizer("bytes"), mixed.mode_names, mixed.sentinels)
  return TextStream(tokens=store, mixture=mixed, vocabulary=vocabulary, seed=0, batch_size=batch)


def corruption(batches):
  """Returns {name: function that prepares `batches` batches}."""
  import grain

  examples = np.random.default_rng(0).integers(3, 259, (2048, TOKENS)).astype(np.uint16)
  each = grain.MapDataset.source(examples).seed(0).repeat().random_map(one_example).batch(BATCH)
  ours = stream(list(examples), "span_corruption", "encoder_decoder", (INPUTS, TARGETS), BATCH)
  ours.plan(0)

  def per_example():
    for number in range(batches):
      each[number]

  def vectorised():
    iterator = ours.iterate(threads=1, prefetch=1)
    for _ in range(batches):
      next(iterator)
    iterator.close()

  return {"one example at a time in grain": per_example, "ssljax in grain": vectorised}, batches * BATCH * TOKENS


def packing():
  """Returns {name: function that packs all documents}."""
  import grain

  generator = np.random.default_rng(0)
  lengths = np.exp(generator.normal(4.6, 0.8, 20_000)).astype(int).clip(1, ROW - 2)
  documents = [generator.integers(3, 259, n).astype(np.uint16) for n in lengths]
  fill = {}

  def first_fit():
    source = grain.MapDataset.source([{"tokens": d} for d in documents]).to_iter_dataset(
      grain.ReadOptions(num_threads=0)
    )
    packed = grain.experimental.FirstFitPackIterDataset(source, length_struct={"tokens": ROW}, num_packing_bins=64)
    rows = sum(1 for _ in packed)
    fill["grain FirstFitPack"] = lengths.sum() / rows / ROW

  def ours():
    made = stream(documents, "causal_lm", "decoder_only", (ROW, 0), BATCH)  # a new one: its plan is part of the time
    plan = made.plan(0)
    for begin in range(0, plan.rows, BATCH):
      made.rows(np.arange(begin, min(begin + BATCH, plan.rows)))
    e = plan.examples
    fill["ssljax"] = int(sum(map(np.sum, made.mixture.sizes(e.length, e.visible, e.spans)))) / plan.rows / ROW

  return {"grain FirstFitPack": first_fit, "ssljax": ours}, int(lengths.sum()), fill


def measure(calls, rounds, tokens):
  """Prints tokens a second, and the ratio to the first with its spread."""
  seconds = {name: [] for name in calls}
  for number in range(rounds + 1):
    for name in list(calls)[:: 1 if number % 2 == 0 else -1]:
      begun = time.process_time()
      calls[name]()
      seconds[name].append(time.process_time() - begun)
  base = next(iter(seconds.values()))[1:]  # the first round warms up
  for name, times in seconds.items():
    ratios = sorted(b / t for b, t in zip(base, times[1:], strict=True))
    print(
      f"{name:32} {tokens / statistics.median(times[1:]) / 1e6:7.2f} Mtokens/s  "
      f"{statistics.median(ratios):.1f} [{ratios[0]:.1f}-{ratios[-1]:.1f}]"
    )


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--rounds", type=int, default=7)
  options = parser.parse_args()
  os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
  calls, tokens = corruption(batches=30)
  measure(calls, options.rounds, tokens)
  calls, tokens, fill = packing()
  measure(calls, max(options.rounds // 2, 1), tokens)
  print("fill", {name: f"{share:.2%}" for name, share in fill.items()})


if __name__ == "__main__":
  main()
