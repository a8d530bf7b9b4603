"""`ssljax data preview`: a config's training data as the model sees it, pictures in a file or text on the terminal."""

import argparse
import pathlib
from typing import Any

import numpy as np

from ssljax import runtime
from ssljax.commands.configs import load_config
from ssljax.errors import UserError


def run(options: argparse.Namespace) -> int:
  """Returns the exit code of `ssljax data preview`."""
  config = load_config(options.config, options.overrides)
  if (config.get("data") or {}).get("text"):
    return _text(config)
  if (config.get("data") or {}).get("ict"):
    return _cloze(config, options.rows)
  if options.out is None:
    raise UserError("--out: missing, expected a .png file")
  out = pathlib.Path(options.out)
  if not out.parent.is_dir() or out.suffix != ".png":
    raise UserError(f"--out: found {out}, expected a .png file in a folder that exists")
  if options.rows < 1:
    raise UserError(f"--rows: found {options.rows}, expected at least 1")
  runtime.start(cpu_devices=options.cpu_devices)

  from ssljax.commands import final
  from ssljax.training import run as runs

  assembled = runs.assemble(config)
  final.views(assembled, rows=min(options.rows, assembled.job.data.batch_size)).save(out)
  classes = f", {assembled.source.num_classes} classes" if assembled.source.num_classes else ""
  print(f"{out}: {len(assembled.source):,} records{classes}, licence {assembled.source.licence}")
  if assembled.captioner is not None:
    from ssljax.data.captions import count_cut

    print(count_cut(assembled.captioner, assembled.source))
  return 0


def _text(config: dict[str, Any]) -> int:
  """Prints what the denoisers of a text config do; nothing of the model is built."""
  from ssljax.commands import text_preview
  from ssljax.data.corpus import Corpus
  from ssljax.training.config import parse
  from ssljax.training.feed import open_feed

  job = parse(config)
  corpus = open_feed(job).sources[0]
  assert isinstance(corpus, Corpus)
  text_preview.show(corpus, seed=job.seed)
  d, longest = corpus.documents, max(corpus.mixture.lengths)
  cut = int((np.diff(corpus.tokens.offsets) > longest).sum())
  print(
    f"{len(d):,} documents; {d.empty:,} empty, {d.corrupt:,} unreadable left out; {d.replaced:,} bad bytes replaced, "
    f"{cut:,} are longer than the longest text a denoiser takes ({longest:,} tokens) and are cut"
  )
  return 0


def _cloze(config: dict[str, Any], rows: int) -> int:
  """Prints queries and their blocks as an ICT config's model reads them."""
  from ssljax.training.config import parse
  from ssljax.training.feed import open_feed

  feed = open_feed(parse(config))
  passages, arrays = feed.sources[0], feed.stream.batch(0).arrays
  for query, block in list(zip(arrays["query"], arrays["block"], strict=True))[:rows]:
    print(f"query  {passages.tokenizer.decode(query)!r}\nblock  {passages.tokenizer.decode(block)!r}\n")
  used, room = np.count_nonzero(arrays["block"], axis=1).mean(), arrays["block"].shape[1]
  print(
    f"{len(passages):,} blocks of {np.diff(passages.blocks.bounds).mean():.1f} sentences on average; "
    f"{passages.blocks.left_out:,} sentences with no other beside them left out; "
    f"a block fills {used:.0f} of {room} tokens; licence {passages.licence}"
  )
  return 0
