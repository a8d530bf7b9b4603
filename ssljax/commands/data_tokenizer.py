"""`ssljax data tokenizer`: a vocabulary from the texts of a source."""

import argparse

from ssljax.data.documents import open_documents
from ssljax.data.tokenizer_training import first_bytes, train
from ssljax.errors import UserError

_MEASURED = 1_000_000  # bytes


def run(options: argparse.Namespace) -> int:
  """Returns the exit code of `ssljax data tokenizer`."""
  if options.max_bytes < 1:
    raise UserError(f"--max_bytes: found {options.max_bytes}, expected at least 1")
  documents = open_documents(options.source, split=options.split)
  texts = first_bytes(documents, most=options.max_bytes)
  tokenizer = train(texts, vocab_size=options.vocab_size, out=options.out)
  sample = list(first_bytes(documents, most=_MEASURED))
  num_tokens = sum(len(ids) for ids in tokenizer.encode(sample))
  num_bytes = sum(len(text.encode("utf-8")) for text in sample)
  ratio = f"{num_bytes / num_tokens:.2f} bytes a token on {num_bytes:,} bytes of {options.split}"
  print(f"{options.out}: {tokenizer.size:,} pieces, {ratio}")
  return 0
