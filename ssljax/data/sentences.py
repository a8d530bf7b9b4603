"""Texts as sentences: where one ends, and the tokens of all of them on disk, made once."""

import functools
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ssljax.data import cache as caches
from ssljax.data.documents import Documents
from ssljax.data.tokenizer import Tokenizer
from ssljax.data.tokens import Tokens, progress, write

_CLOSING = "[\"'\u201d\u2019)\\]]*"
_END = re.compile(rf"[.!?]{_CLOSING}\s+|[\u3002\uff01\uff1f]{_CLOSING}\s*|\n[ \t\r]*\n\s*")


def split_sentences(text: str) -> list[str]:
  """Returns the sentences of a text; put together they are the text.

  A sentence ends behind . ! or ? where white space follows, behind their full-width forms (CJK), each with the quotes
  and brackets that close there, and at an empty line, as a heading or a function does. The white space belongs to the
  sentence before it. It is a rule and no model: "Dr. Who" are two sentences.
  """
  ends = [match.end() for match in _END.finditer(text)]
  if ends and not text[: ends[0]].strip():
    del ends[0]
  pieces = [text[begin:end] for begin, end in zip([0, *ends], [*ends, len(text)], strict=True)]
  return [piece for piece in pieces if piece]


class Sentences(Tokens):
  """The token ids of the sentences of D documents, one after the other; see `Tokens`, whose documents they are.

  Attributes:
    documents: int64[D+1], mapped from disk: document d has the sentences documents[d] to documents[d+1].
  """

  lazy = (*Tokens.lazy, "documents")

  @functools.cached_property
  def documents(self) -> np.ndarray:
    """Returns int64[D+1], mapped from disk."""
    return np.load(self.folder / "documents.npy", mmap_mode="r", allow_pickle=False)


def open_sentences(
  documents: Documents, tokenizer: Tokenizer, *, cache: Path | None = None, say: Callable[[str], None] = progress
) -> Sentences:
  """Returns the tokens of all sentences, each tokenised for itself; arguments and errors are `open_tokens`'s."""
  folder = cache if cache is not None else caches.root() / "sentences"
  key = caches.key("sentences-1", documents.fingerprint, tokenizer.fingerprint)
  return Sentences(caches.cached(folder / key, lambda aside: write(documents, tokenizer, aside, say, split_sentences)))
