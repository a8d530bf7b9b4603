"""Tasks of seconds: MAE on pictures of files, or causal text; the tests override what they need."""

import os

import tiny_config
import tiny_text_config


def get_config(variant="", names="ab"):
  variant, names = (variant, names) if variant != "three" else ("", "abc")
  folder, text = os.environ["SSLJAX_TEST_DATA"], variant == "text"
  config = tiny_text_config.get_config("decoder_only") if text else tiny_config.get_config()
  files = [f"text:{folder}/{name}.jsonl" for name in names] if text else [f"npz:{folder}/{name}.npz" for name in names]
  config["data"] = {key: value for key, value in config["data"].items() if key != "source"}
  if text:
    config["evaluation"]["evals"] = dict(denoising=dict(name="denoising.BitsPerByte", mixture="causal_lm", max_rows=8))
    config["data"]["text"]["mixture"] = "causal_lm"
  else:
    config["objective"]["encoder"]["depth"] = 1
    config["evaluation"]["evals"] = dict(knn=dict(name="knn.KNN", k=5))
  rate = dict(name="infinite", peak=2e-3, constant=1e-3, minimum=1e-4, warmup_steps=2, cooldown_steps=2)
  config["optimizer"] = dict(name="adamw", learning_rate=rate)
  del config["steps"]
  return config | dict(
    stream=[dict(name=name, source=file, steps=6) for name, file in zip(names, files, strict=True)],
    checkpoint=dict(every=4, keep=1),
  )
