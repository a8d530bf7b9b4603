import ml_collections

STEPS = 600


def get_config():
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.steps = STEPS
  config.data = dict(
    source="embedded:python",
    batch_size=16,
    text=dict(
      tokenizer="train:2048", inputs_length=128, targets_length=64, row_inputs=512, row_targets=232, mixture="ul2"
    ),
  )
  config.objective = dict(
    name="ul2.UL2",
    model=dict(
      name="t5.T5", vocab_size=2112, width=256, depth=3, heads=4, head_width=64, hidden=512, head="tied"
    ),
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=dict(name="infinite", peak=2e-3, constant=1e-3, minimum=1e-4, warmup_steps=60, cooldown_steps=300, anneal_start=450, anneal_steps=150),
    b2=0.98,
    weight_decay=0.01,
    clip=1.0,
  )
  config.checkpoint = dict(every=200, keep=2)
  config.log_every = 20
  config.evaluation = dict(
    every=200,
    batch_size=16,
    evals=dict(
      denoising=dict(name="denoising.BitsPerByte"),
      ngram=dict(name="ngram.NGram", order=2),
      infill=dict(name="infill.Infill"),
    ),
  )
  return config
