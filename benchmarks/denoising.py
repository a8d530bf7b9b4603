"""Span corruption and packing on one core: ssljax against what one would write with grain, side by side in one run.

    pip install -e ".[dev]" && python benchmarks/denoising.py [--rounds=7] [--batch=128]

Corruption: 568 tokens to 512 + 114, 15 % hidden, spans of 3, batches of 128 (T5's), both in a grain pipeline. The
other side takes the steps of Hugging Face's T5 collator (FlaxDataCollatorForT5MLM) for one example at a time, then
batches. Packing: 20,000 documents of log-normal length into rows of 512 with segment ids and positions, against grain's
FirstFitPackIterDataset with 64 bins. Ratios are taken inside a round, the order turns around with each round; the
seconds are those of the processor. Last comes the padding of UL2's seven denoisers in rows of several shapes.
"""

import argparse
import os
import statistics
import time
import types

import numpy as np

TOKENS, INPUTS, TARGETS, ROW = 568, 512, 114, 512


def hugging_face_style(example, generator):
  """Returns one example's inputs, labels and decoder inputs, by the steps of Hugging Face's T5 collator, in NumPy."""
  tokens = np.array([example])  # the collator works on a batch; here it is of one
  noise = round(TOKENS * 0.15)
  spans = round(noise / 3)

  def segmentation(total):
    first = np.arange(total - 1) < spans - 1
    generator.shuffle(first)
    return np.unique(np.cumsum(np.pad(first, [[1, 0]])), return_counts=True)[1]

  lengths = np.stack([segmentation(TOKENS - noise), segmentation(noise)], axis=1).ravel()
  starts = np.zeros(TOKENS, np.int8)
  starts[np.cumsum(lengths)[:-1]] = 1
  mask = (np.cumsum(starts) % 2 == 1)[None]

  def filtered(hidden):
    hidden = hidden.astype(np.int8)
    first = hidden - np.roll(hidden, 1, axis=-1) * hidden
    first[:, 0] = hidden[:, 0]
    ids = np.where(first != 0, np.cumsum(first, axis=-1), first)
    ids = np.where(ids != 0, 32_100 - ids, 0) - (hidden - first)  # -1: dropped
    ids = np.where(ids != 0, ids, tokens)
    kept = ids[ids >= 0].reshape(1, -1)
    return np.concatenate([kept, np.full((1, 1), 1, np.int32)], axis=-1)

  inputs, labels = filtered(mask), filtered(~mask)
  if inputs.shape[-1] != INPUTS or labels.shape[-1] != TARGETS:
    raise ValueError("lengths")
  shifted = np.zeros_like(labels)
  shifted[:, 1:] = labels[:, :-1]
  return {"input_ids": inputs[0], "labels": labels[0], "decoder_input_ids": np.where(shifted == -100, 0, shifted)[0]}


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


def corruption(batches, batch):
  """Returns {name: function that prepares `batches` batches of `batch` rows}."""
  import grain

  examples = np.random.default_rng(0).integers(3, 259, (2048, TOKENS)).astype(np.uint16)
  each = grain.MapDataset.source(examples).seed(0).repeat().random_map(hugging_face_style).batch(batch)
  ours = stream(list(examples), "span_corruption", "encoder_decoder", (INPUTS, TARGETS), batch)
  ours.plan(0)

  def per_example():
    for number in range(batches):
      each[number]

  def vectorised():
    iterator = ours.iterate(threads=1, prefetch=1)
    for _ in range(batches):
      next(iterator)
    iterator.close()

  return {"HF-style collator in grain": per_example, "ssljax in grain": vectorised}, batches * batch * TOKENS


def packing(batch):
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
    made = stream(documents, "causal_lm", "decoder_only", (ROW, 0), batch)  # a new one: its plan is part of the time
    plan = made.plan(0)
    for begin in range(0, plan.rows, batch):
      made.rows(np.arange(begin, min(begin + batch, plan.rows)))
    e = plan.examples
    fill["ssljax"] = int(sum(map(np.sum, made.mixture.sizes(e.length, e.visible, e.spans)))) / plan.rows / ROW

  return {"grain FirstFitPack": first_fit, "ssljax": ours}, int(lengths.sum()), fill


def padding():
  """Prints the padding of rows of UL2's mixture: documents of log-normal length, 5 M tokens."""
  from ssljax.data import plan
  from ssljax.data.mixture import Mixture, named

  lengths = np.exp(np.random.default_rng(0).normal(5.5, 1.2, 10_000)).astype(int)
  offsets = np.append(0, np.cumsum(lengths))
  shapes = (
    ("encoder_decoder", 128, 64, 512, 232),
    ("encoder_decoder", 128, 64, 768, 344),
    ("encoder_decoder", 256, 128, 1024, 464),
    ("encoder_decoder", 256, 128, 2048, 928),
    ("decoder_only", 256, 0, 512, None),
  )
  for layout, inputs, targets, *row in shapes:
    mixture = Mixture(named("ul2"), layout, inputs, targets, "ul2", *row)
    made = plan.make(offsets, mixture, seed=0, epoch=0, documents="shared")
    e = made.examples
    tokens = sum(map(np.sum, mixture.sizes(e.length, e.visible, e.spans)))
    share = 1 - tokens / made.rows / sum(mixture.capacity)
    print(f"{layout:16} examples {inputs} + {targets}, rows {mixture.capacity}: padding {share:.1%}")


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
  parser.add_argument("--batch", type=int, default=128, help="rows (default 128, T5's)")
  options = parser.parse_args()
  os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
  calls, tokens = corruption(30, options.batch)
  measure(calls, options.rounds, tokens)
  calls, tokens, fill = packing(options.batch)
  measure(calls, max(options.rounds // 2, 1), tokens)
  print("fill", {name: f"{share:.2%}" for name, share in fill.items()})
  padding()


if __name__ == "__main__":
  main()
