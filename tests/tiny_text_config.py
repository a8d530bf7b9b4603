"""A run of seconds on text: UL2's mixture on a file of the tests; they override what they need."""

import os


def get_config(variant=""):
  size = dict(vocab_size=320, width=16, depth=1, heads=2, head_width=8, hidden=16, dropout=0.1)
  decoder_only = variant == "decoder_only"
  evals = dict(
    denoising=dict(name="denoising.BitsPerByte", max_rows=16),
    ngram=dict(name="ngram.NGram", order=1),
    infill=dict(name="infill.Infill", passages=2),
  )
  lengths = (
    dict(inputs_length=64) if decoder_only else dict(inputs_length=40, targets_length=32, row_inputs=64, row_targets=48)
  )
  return dict(
    seed=3,
    steps=4,
    data=dict(
      source=f"text:{os.environ['SSLJAX_TEST_DATA']}/texts.jsonl",
      batch_size=8,
      text=dict(tokenizer="bytes", layout="decoder_only" if decoder_only else "encoder_decoder", **lengths),
    ),
    objective=dict(name="ul2.UL2", model=dict(name="prefix_lm.PrefixLM" if decoder_only else "t5.T5") | size),
    optimizer=dict(name="adamw", learning_rate=1e-2),
    checkpoint=dict(every=5, keep=3),
    log_every=1,
    evaluation=None if variant == "bare" else dict(batch_size=8, evals=evals),
  )
