"""Captions to train on: what `config.data.captions` says, and `Captioner`, which makes rows of token ids of them."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from ssljax.data import cache as caches
from ssljax.data import tokenizer as tokenizers
from ssljax.data.clip_tokenizer import open_clip_tokenizer
from ssljax.data.permutation import mix, words
from ssljax.data.source import Source
from ssljax.errors import UserError, nearest

MAX_CHARACTERS = 2**16  # of a caption; what is behind them is cut before it is tokenised
_PICK = 0xCA9710  # use of the seed
_READ = 256  # records a read
_LEARN_FROM = 10_000_000  # characters


@dataclasses.dataclass(frozen=True, kw_only=True)
class Captions:
  """How the captions of pictures become `text` of a batch, int32[B,length], or `texts` int32[B,2,length].

  Attributes:
    tokenizer: "clip" (its vocabulary from an installed package), bpe_simple_vocab_16e6.txt.gz at a path, "bytes",
      FILE.model (SentencePiece), FILE.json (Hugging Face), or "train:N": N pieces learnt from the training captions.
    length: tokens of a row, start and end included; a longer caption is cut.
    pick: which caption of a picture that has several: random, by seed and place in the stream alone; the first; or
      two: the first and one of the others (itself again where there is none), which make `texts`.
    case: whether letters stay as they are ("kept") or all become small ("lower", SigLIP; CLIP's tokenizer does so by
      itself).
    padding: what fills a row: the id 0 ("zero", CLIP) or the end of the text again ("end", SigLIP).
    vocabulary: written by the program: what the run was started with. Another one is refused.
  """

  tokenizer: str
  length: int = 77
  pick: Literal["random", "first", "two"] = "random"
  case: Literal["kept", "lower"] = "kept"
  padding: Literal["zero", "end"] = "zero"
  vocabulary: str | None = None

  def __post_init__(self):
    if self.length < 3:
      raise UserError(f"data.captions.length: found {self.length}, expected at least 3: start, a token, end")

  def spelled(self, text: str) -> str:
    """Returns a text as the tokenizer is given it."""
    return text[:MAX_CHARACTERS].lower() if self.case == "lower" else text[:MAX_CHARACTERS]

  @property
  def key(self) -> str:
    """Returns what a batch calls them."""
    return "texts" if self.pick == "two" else "text"

  @property
  def shape(self) -> tuple[int, ...]:
    """Returns the shape of one example's."""
    return (2, self.length) if self.pick == "two" else (self.length,)


class Encoded(NamedTuple):
  """Texts as rows of ids: `ids` int32[n,L] and `cut` bool[n], which of them did not fit."""

  ids: np.ndarray
  cut: np.ndarray


class Captioner:
  """A tokenizer that makes rows of one length: start (where the tokenizer has one), text, end, padding.

  Args:
    section: the config section.
    learn_from: whose captions "train:N" learns from.

  Attributes:
    section: the config section.
    tokenizer: pieces, start and end.

  Raises:
    UserError: a tokenizer that is none, or another one than the run was started with.
  """

  def __init__(self, section: Captions, *, learn_from: Source | None = None):
    self.section, self.tokenizer = section, _open_tokenizer(section, learn_from)
    if section.vocabulary not in (None, self.identity):
      expected = f"expected {section.vocabulary}, as the run was started"
      raise UserError(f"data.captions.tokenizer: found {self.identity}, {expected}")

  @property
  def size(self) -> int:
    """Returns the number of ids; every id is in [0, size)."""
    return self.tokenizer.size

  @property
  def end(self) -> int:
    """Returns the id that ends a text; each row has it."""
    return self.tokenizer.eos

  @property
  def identity(self) -> str:
    """Returns the vocabulary in words: its size, and the tokenizer's fingerprint."""
    return f"{self.size} ids, tokenizer {self.tokenizer.fingerprint[:21]}"

  def encode(self, texts: Sequence[str]) -> Encoded:
    """Returns the rows of texts; where a text is cut its last token is the end all the same."""
    start = [] if self.tokenizer.bos is None else [self.tokenizer.bos]
    room = self.section.length - len(start) - 1
    ids = np.full((len(texts), self.section.length), self.end if self.section.padding == "end" else 0, np.int32)
    found = self.tokenizer.encode([self.section.spelled(text) for text in texts])
    for row, tokens in zip(ids, found, strict=True):
      line = [*start, *tokens[:room], self.end]
      row[: len(line)] = line
    cut = [len(tokens) > room or len(text) > MAX_CHARACTERS for tokens, text in zip(found, texts, strict=True)]
    return Encoded(ids, np.array(cut, bool))

  def decode(self, row: np.ndarray) -> str:
    """Returns the text of a row int32[L]: what stands before its first end."""
    ends = np.flatnonzero(row == self.end)
    return self.tokenizer.decode([i for i in row[: ends[0] if len(ends) else None] if i != self.tokenizer.bos])

  def rows(self, captions: Sequence[tuple[str, ...]], *, seed: int, positions: np.ndarray) -> np.ndarray:
    """Returns int32[n,L]: of the captions of each of n pictures, none without, the one that is picked.

    Where two are picked it is int32[n,2,L].

    Args:
      captions: the captions of each picture.
      seed: chooses.
      positions: int64[n], the places in the stream; they and the seed alone decide.
    """
    chosen = zip(captions, self._pick([len(texts) for texts in captions], seed, positions), strict=True)
    ids = self.encode([texts[i] for texts, numbers in chosen for i in numbers]).ids
    return ids.reshape(len(captions), *self.section.shape)

  def _pick(self, counts: list[int], seed: int, positions: np.ndarray) -> list[tuple[int, ...]]:
    """Returns which of so many captions each picture's are."""
    if self.section.pick == "first":
      return [(0,)] * len(counts)
    draw = (mix(words(seed, _PICK, count=1) ^ positions.astype(np.uint64)) >> np.uint64(32)).tolist()
    if self.section.pick == "random":
      return [(number * count >> 32,) for number, count in zip(draw, counts, strict=True)]
    return [(0, min(1 + (number * (count - 1) >> 32), count - 1)) for number, count in zip(draw, counts, strict=True)]


def count_cut(captioner: Captioner, source: Source, *, most: int = 2000) -> str:
  """Returns a line that says how many captions are cut, of at most `most` pictures evenly spread over the source."""
  rows = np.linspace(0, len(source) - 1, min(most, len(source))).astype(np.int64)
  cut = total = 0
  for start in range(0, len(rows), _READ):
    found = captioner.encode([text for texts in source.captions(rows[start : start + _READ]) for text in texts]).cut
    cut, total = cut + int(found.sum()), total + len(found)
  seen = "" if len(rows) == len(source) else f" ({len(rows):,} of {len(source):,} pictures were looked at)"
  length = captioner.section.length
  return f"captions: {cut:,} of {total:,} are longer than {length} tokens (data.captions.length) and are cut{seen}"


def _open_tokenizer(section: Captions, source: Source | None) -> tokenizers.Tokenizer:
  where = section.tokenizer
  kind, _, pieces = where.partition(":")
  if kind == "train":
    return _learnt(pieces, section, source)
  if where == "clip":
    return open_clip_tokenizer()
  if where.endswith(".txt.gz"):
    return open_clip_tokenizer(where)
  if where != "bytes" and not where.endswith((".model", ".json")):
    valid = ("clip", "bytes", "train:N", "FILE.model", "FILE.json", "FILE.txt.gz")
    raise UserError(f"data.captions.tokenizer: found {nearest(where, valid)}")
  return tokenizers.open_tokenizer(where)


def _learnt(pieces: str, section: Captions, source: Source | None) -> tokenizers.Tokenizer:
  """Returns the tokenizer of as many pieces, learnt from a source's captions, spelled as the section says, once."""
  if not pieces.isdecimal() or source is None:
    raise UserError(f"data.captions.tokenizer: found train:{pieces}, expected train:N with a number of pieces")
  from ssljax.data import tokenizer_training

  texts = [section.spelled(text) for text in _texts(source)]
  digest = hashlib.blake2b("\n".join(texts).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
  key = caches.key("captions-1", digest, int(pieces))

  def learn(folder: pathlib.Path) -> None:
    tokenizer_training.train(texts, vocab_size=int(pieces), out=folder / "tokenizer.model")

  return tokenizers.open_tokenizer(str(caches.cached(caches.root() / "tokenizers" / key, learn) / "tokenizer.model"))


def _texts(source: Source) -> Iterator[str]:
  """Yields the captions of a source in its order, until they are 10 MB."""
  size = 0
  for start in range(0, len(source), _READ):
    for texts in source.captions(np.arange(start, min(start + _READ, len(source)))):
      yield from texts
      size += sum(map(len, texts))
    if size > _LEARN_FROM:
      return
