"""A retriever of texts by the inverse cloze task, on the documentation of Python packages: minutes on 2 CPU cores.

  pip install -e ".[data,text]" && ssljax train --config=configs/ict_quickstart.py --workdir=runs/ict
  ssljax eval --workdir=runs/ict --evals=retrieval

Data:      the docstrings of Python, NumPy, SciPy, scikit-learn, scikit-image and NetworkX, 11 MB; modules whose name
           hashes to the test split are held out. 8,192 pieces are learnt from the training split first, once.
Task:      a sentence asks for the block it was taken out of (cloze, 2,906 blocks); a document's first sentence asks for
           its blocks but the first (lead, 450 queries, 2,187 blocks). More: docs/retrieval.md.
Hardware:  2 CPU cores.
Numbers:   means of three seeds (--config.seed=0, 1, 2), 193 s where nothing ran beside it; ranges in docs/retrieval.md.
                            cloze R@1   R@5  R@10  nDCG@10    lead R@1   R@5  R@10  nDCG@10
           chance            .000  .002  .003     .002        .002  .011  .022     .003
           BM25              .132  .308  .389     .250        .409  .629  .687     .351
           untrained         .003  .013  .020     .010        .001  .015  .024     .008
           trained           .052  .176  .260     .141        .061  .178  .275     .082
           trained + BM25    .117  .309  .410     .250        .190  .447  .600     .212
"""

import ml_collections

STEPS = 400


def get_config():
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.steps = STEPS
  config.data = dict(
    source="embedded:docstrings",
    batch_size=128,
    ict=dict(tokenizer="train:8192", query_length=32, block_length=128, keep=0.1),
  )
  config.objective = dict(
    name="ict.ICT",
    encoder=dict(name="bert.Bert", vocab_size=8192, length=128, width=128, depth=1, heads=4, pooling="mean"),
    towers="shared",
    scores="scaled",
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=dict(name="cosine", peak=2e-3, warmup_steps=STEPS // 10, total_steps=STEPS),
    b1=0.9,
    b2=0.98,
    weight_decay=0.01,
  )
  config.checkpoint = dict(every=100, keep=2)
  config.log_every = 20
  config.evaluation = dict(batch_size=256, evals=dict(retrieval=dict(name="text_retrieval.TextRetrieval")))
  return config
