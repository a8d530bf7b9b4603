"""A SentencePiece vocabulary from texts."""

import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ssljax.data.documents import Documents
from ssljax.data.permutation import permute
from ssljax.data.tokenizer import Tokenizer, open_tokenizer, require
from ssljax.errors import UserError

_LINE = 1024  # characters; SentencePiece leaves out sentences above 4192 bytes
_SMALLEST = 256 + 5  # the bytes, <pad>, </s>, <unk>, line break and tab


def train(texts: Iterable[str], *, vocab_size: int, out: Path | str) -> Tokenizer:
  """Returns a unigram tokenizer trained on `texts`, written to `out`; the same texts give the same file.

  Nothing is normalised and bytes stand for what has no piece, so `decode(encode(text)) == text` for every text. Ids:
  pad 0, eos 1, unk 2, line break 3, tab 4, the 256 bytes, then pieces. No piece crosses white space, runs of spaces
  are pieces of their own.

  Args:
    texts: the documents; all are held in memory.
    vocab_size: the number of ids.
    out: the file to write, ending in .model.

  Raises:
    UserError: a vocabulary too large or too small for the texts, no text, a path that cannot be written.

  Source: Subword Regularization, Kudo 2018, arXiv:1804.10959.
  """
  require("sentencepiece", why="data tokenizer")
  path = Path(out).expanduser()
  if path.suffix != ".model" or not path.parent.is_dir():
    raise UserError(f"--out: found {out}, expected a .model file in a folder that exists")
  if vocab_size < _SMALLEST:
    raise UserError(f"--vocab_size: found {vocab_size}, expected at least {_SMALLEST}: the bytes and special pieces")
  _write(path, _model(texts, vocab_size))
  return open_tokenizer(str(path))


def first_bytes(documents: Documents, *, most: int) -> Iterator[str]:
  """Yields documents in a fixed shuffle until they hold `most` UTF-8 bytes, the last one whole.

  The shuffle makes what is cut off a large corpus a sample of the whole, not the first of its files.
  """
  total = 0
  for row in permute(np.arange(len(documents)), size=len(documents), key=(0,)).tolist():
    text = documents.read(row)
    yield text
    total += len(text.encode("utf-8"))
    if total >= most:
      return


def _model(texts: Iterable[str], vocab_size: int) -> bytes:
  from sentencepiece import SentencePieceTrainer

  model = io.BytesIO()
  try:
    SentencePieceTrainer.Train(
      sentence_iterator=_sentences(texts),
      model_writer=model,
      vocab_size=vocab_size,
      model_type="unigram",
      normalization_rule_name="identity",
      add_dummy_prefix=False,
      remove_extra_whitespaces=False,
      split_by_whitespace=True,
      allow_whitespace_only_pieces=True,  # one piece for an indentation instead of one a space
      byte_fallback=True,
      user_defined_symbols=["\n", "\t"],  # the trainer itself has no place for them
      pad_id=0,
      eos_id=1,
      unk_id=2,
      bos_id=-1,
      seed_sentencepiece_size=max(100_000, 10 * vocab_size),
      num_threads=2,  # fixed: the order of the sums, and with it the file, depends on it
      minloglevel=2,
    )
  except RuntimeError as error:
    text = str(error).splitlines()[0].rpartition("] ")[2] or "no text"
    raise UserError(f"--vocab_size: {vocab_size} does not fit the texts: {text[:200]}") from None
  return model.getvalue()


def _sentences(texts: Iterable[str]) -> Iterator[str]:
  for text in texts:
    for line in text.split("\n"):
      for start in range(0, len(line), _LINE):
        yield line[start : start + _LINE]


def _write(path: Path, data: bytes) -> None:
  aside = path.with_name(f".{path.name}.{os.getpid()}")
  try:
    aside.write_bytes(data)
    aside.replace(path)
  except OSError as error:
    raise UserError(f"--out: cannot write {path} ({error.strerror}), expected a writable folder") from None
