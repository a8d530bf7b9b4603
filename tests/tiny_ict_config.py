"""A run of seconds on queries and blocks; the tests override what they need."""

import os


def get_config():
  return dict(
    seed=3,
    steps=3,
    data=dict(
      source=f"text:{os.environ['SSLJAX_TEST_DATA']}/texts.jsonl",
      batch_size=8,
      ict=dict(tokenizer="bytes", query_length=16, block_length=48),
    ),
    objective=dict(
      name="ict.ICT",
      encoder=dict(name="bert.Bert", vocab_size=260, length=48, width=16, depth=1, heads=2, pooling="mean"),
    ),
    optimizer=dict(name="adamw", learning_rate=1e-2),
    checkpoint=dict(every=2, keep=3),
    log_every=1,
    evaluation=dict(batch_size=8, evals=dict(retrieval=dict(name="text_retrieval.TextRetrieval", ks=(1, 5)))),
  )
