"""Text to train on: what `config.data.text` says, and `open_corpus`, which makes it of a source."""

import dataclasses
from pathlib import Path
from typing import ClassVar

from ssljax.data import cache as caches
from ssljax.data import mixture as mixtures
from ssljax.data import tokenizer as tokenizers
from ssljax.data.documents import Documents, open_documents
from ssljax.data.mixture import Denoiser, Layout, Mixture
from ssljax.data.plan import Documents as Sharing
from ssljax.data.text_stream import TextStream
from ssljax.data.tokens import Tokens, open_tokens, progress
from ssljax.data.vocabulary import Vocabulary
from ssljax.errors import UserError

_TRAINED_ON = 50_000_000  # bytes of text a tokenizer is trained on


@dataclasses.dataclass(frozen=True, kw_only=True)
class Text:
  """How texts become batches.

  Attributes:
    tokenizer: "bytes", FILE.model (SentencePiece), FILE.json (Hugging Face), or "train:N": N pieces learnt from the
      training split (of a stream: of its first task) the first time, then kept in the cache.
    inputs_length: tokens an example may have for the encoder; of decoder_only: in its one sequence.
    targets_length: tokens an example may have for the decoder; unused by decoder_only.
    row_inputs, row_targets: tokens of a row, which holds one example or several; none: those of an example.
    layout: encoder_decoder or decoder_only.
    mixture: ul2, ul2r, span_corruption, prefix_lm or causal_lm; unused where `denoisers` are given.
    denoisers: a mixture of one's own.
    modes: mode tokens: ul2 ([NLU], [S2S], [NLG]), rsx ([R], [S], [X]) or absent.
    sentinels: how many the vocabulary has; none: as many as the mixture needs. Say it where runs of several mixtures
      share a vocabulary.
    documents: "shared": every denoiser sees all documents; "disjoint": each its own.
    vocabulary: written by the program: what the run was started with. Another one is refused.
  """

  tokenizer: str
  inputs_length: int
  targets_length: int = 0
  row_inputs: int | None = None
  row_targets: int | None = None
  layout: Layout = "encoder_decoder"
  mixture: str = "ul2"
  denoisers: tuple[Denoiser, ...] = ()
  modes: str = "ul2"
  sentinels: int | None = None
  documents: Sharing = "shared"
  vocabulary: str | None = None

  def mix(self, denoisers: tuple[Denoiser, ...]) -> Mixture:
    """Returns a mixture of these denoisers in this section's lengths and layout."""
    return Mixture(
      denoisers, self.layout, self.inputs_length, self.targets_length, self.modes, self.row_inputs, self.row_targets
    )


@dataclasses.dataclass(frozen=True)
class Corpus:
  """One split of a source, tokenised, with the vocabulary and the mixture of its section.

  Attributes:
    text: the section.
    documents: the texts.
    tokens: their tokens.
    vocabulary: pieces, mode tokens, sentinels.
    mixture: the denoisers.
    trained_on: source and split its tokenizer is learnt from, where it is learnt.
    section: the key of `data` it is made by.
  """

  section: ClassVar[str] = "text"
  text: Text
  documents: Documents
  tokens: Tokens
  vocabulary: Vocabulary
  mixture: Mixture
  trained_on: tuple[str, str]

  def __len__(self) -> int:
    return len(self.tokens)

  @property
  def identity(self) -> str:
    """Returns the vocabulary in words: its size, and the tokenizer's fingerprint."""
    return f"{self.vocabulary.size} ids, tokenizer {self.vocabulary.tokenizer.fingerprint[:16]}"

  def stream(self, *, seed: int, batch_size: int, mixture: Mixture | None = None, **hosts: int) -> TextStream:
    """Returns the stream of batches; see `TextStream`."""
    return TextStream(
      tokens=self.tokens,
      mixture=mixture or self.mixture,
      vocabulary=self.vocabulary,
      seed=seed,
      batch_size=batch_size,
      documents=self.text.documents,
      **hosts,
    )


def open_corpus(spec: str, text: Text, *, split: str, trained_on: tuple[str, str]) -> Corpus:
  """Returns the corpus of a split.

  Args:
    spec: "text:GLOB", "embedded:python" or "tfds:NAME".
    text: the section.
    split: as for `documents.open_documents`.
    trained_on: source and split a tokenizer "train:N" is learnt from.

  Raises:
    UserError: what the source, the tokenizer, the mixture or the vocabulary cannot be.
  """
  mixture = text.mix(text.denoisers or mixtures.named(text.mixture))
  documents = open_documents(spec, split=split)
  tokenizer = named_tokenizer(text.tokenizer, *trained_on)
  if text.sentinels is not None and text.sentinels < mixture.sentinels:
    spans = f"the denoisers make up to {mixture.sentinels} spans"
    raise UserError(f"data.text.sentinels: found {text.sentinels}, expected at least {mixture.sentinels}: {spans}")
  vocabulary = Vocabulary(tokenizer, mixture.mode_names, text.sentinels or mixture.sentinels)
  corpus = Corpus(text, documents, open_tokens(documents, tokenizer), vocabulary, mixture, trained_on)
  if text.vocabulary not in (None, corpus.identity):
    raise UserError(f"data.text.tokenizer: found {corpus.identity}, expected {text.vocabulary}, as the run was started")
  return corpus


def named_tokenizer(name: str, spec: str, split: str) -> tokenizers.Tokenizer:
  """Returns the tokenizer `name` as in `Text`; "train:N" is learnt from the split of a source, once.

  Raises:
    UserError: as `tokenizer.open_tokenizer`; "train:" without a number.
  """
  kind, _, pieces = name.partition(":")
  if kind != "train":
    return tokenizers.open_tokenizer(name)
  if not pieces.isdecimal():
    raise UserError(f"data.text.tokenizer: found {name!r}, expected train:N with a number of pieces")
  from ssljax.data import tokenizer_training

  documents = open_documents(spec, split=split)
  key = caches.key("tokenizer-1", documents.fingerprint, int(pieces), _TRAINED_ON)

  def learn(folder: Path) -> None:
    progress(f"learning {int(pieces):,} pieces from {spec}, once (10 MB take about a minute)")
    texts = tokenizer_training.first_bytes(documents, most=_TRAINED_ON)
    tokenizer_training.train(texts, vocab_size=int(pieces), out=folder / "tokenizer.model")

  return tokenizers.open_tokenizer(str(caches.cached(caches.root() / "tokenizers" / key, learn) / "tokenizer.model"))
