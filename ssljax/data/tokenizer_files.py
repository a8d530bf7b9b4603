"""Tokenizers read from files: SentencePiece models and Hugging Face's tokenizer.json."""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ssljax.data.tokenizer import PAD, Tokenizer, require
from ssljax.errors import UserError

PADS = ("<pad>", "[PAD]", "<|pad|>", "<|padding|>", "<PAD>")
ENDS = ("</s>", "<|endoftext|>", "<eos>", "[SEP]", "<|end_of_text|>", "[EOS]", "<EOS>")
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # how SentencePiece spells a space
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


class SentencePieceTokenizer(Tokenizer):
  """A SentencePiece model, as T5's spiece.model or what `ssljax data tokenizer` writes.

  Source: SentencePiece: A simple and language independent subword tokenizer and detokenizer for Neural Text Processing,
  Kudo and Richardson 2018, arXiv:1808.06226.
  Differs from the reference: U+2581, which SentencePiece takes for a space, is spelled by its three bytes where the
  model has byte pieces, so that it comes back.
  """

  file = "spiece.model"

  def __init__(self, data: bytes, *, name: str):
    require("sentencepiece", why=f"tokenizer: {name}")
    from sentencepiece import SentencePieceProcessor

    self.model, self.data, self.fingerprint = SentencePieceProcessor(), data, digest(data)
    try:
      self.model.LoadFromSerializedProto(data)
    except (RuntimeError, OSError) as error:
      raise UserError(f"tokenizer: {name}: no SentencePiece model ({_line(error)})") from None
    self.size, self.eos = self.model.GetPieceSize(), self.model.eos_id()
    check(name, first=self.model.IdToPiece(PAD), is_pad=self.model.pad_id() == PAD, eos=self.eos)
    self.bytes_of = _lengths(map(self._num_bytes, range(self.size)))
    spelled = [self.id(f"<0x{byte:02X}>") for byte in _SPACE.encode("utf-8")]
    self._spelled = None if None in spelled else spelled

  def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
    """Returns the ids int32[n] of each text."""
    found = self.model.Encode(list(texts), out_type=int)
    if self._spelled is not None:
      found = [self._spell(text) if _SPACE in text else ids for text, ids in zip(texts, found, strict=True)]
    return [np.array(ids, np.int32) for ids in found]

  def _spell(self, text: str) -> list[int]:
    first, *others = self.model.Encode(text.split(_SPACE), out_type=int)
    return [*first, *(i for ids in others for i in (*self._spelled, *ids))]

  def _decode(self, ids: list[int]) -> str:
    return self.model.Decode(ids)

  def id(self, piece: str) -> int | None:
    """Returns the id of a piece, or None."""
    number = self.model.PieceToId(piece)
    return number if self.model.IdToPiece(number) == piece else None

  def _num_bytes(self, number: int) -> int:
    if self.model.IsControl(number) or self.model.IsUnknown(number) or self.model.IsUnused(number):
      return 0
    return 1 if self.model.IsByte(number) else len(self.model.IdToPiece(number).replace(_SPACE, " ").encode("utf-8"))


class HuggingFaceTokenizer(Tokenizer):
  """A tokenizer.json of Hugging Face's `tokenizers`; its truncation, padding and templates are switched off.

  Where a vocabulary drops spaces, as WordPiece does, `bytes_of` counts the letters alone and `decode` guesses the
  spaces.
  """

  file = "tokenizer.json"

  def __init__(self, data: bytes, *, name: str):
    require("tokenizers", why=f"tokenizer: {name}")
    import tokenizers

    self.data, self.fingerprint = data, digest(data)
    try:
      self.model = tokenizers.Tokenizer.from_str(data.decode("utf-8"))
    except Exception as error:  # the library raises plain Exception
      raise UserError(f"tokenizer: {name}: no tokenizer.json of Hugging Face ({_line(error)})") from None
    self._plain()
    vocabulary = self.model.get_vocab(with_added_tokens=True)
    self.size = max(vocabulary.values(), default=-1) + 1
    first = self.model.id_to_token(PAD) if self.size else None
    eos = next((vocabulary[piece] for piece in ENDS if piece in vocabulary), -1)
    check(name, first=first, is_pad=first in PADS, eos=eos)
    self.eos = eos
    around = self.model.encode("", add_special_tokens=True).ids  # what its template puts around a text
    self.bos = around[0] if around and around[0] != eos else None
    self.bytes_of = self._num_bytes(vocabulary, json.loads(data))

  def _plain(self) -> None:
    self.model.no_truncation()
    self.model.no_padding()
    self.model.encode_special_tokens = True  # "</s>" in a text is four characters, not the end of it

  def _num_bytes(self, vocabulary: dict[str, int], content: dict[str, Any]) -> np.ndarray:
    special = {number for number, token in self.model.get_added_tokens_decoder().items() if token.special}
    unknown = (content.get("model") or {}).get("unk_token")
    count = len if '"ByteLevel"' in json.dumps([content.get("decoder"), content.get("pre_tokenizer")]) else _letters
    lengths = [0] * self.size
    for piece, number in vocabulary.items():
      lengths[number] = 0 if number in special or piece == unknown else count(piece)
    return _lengths(lengths)

  def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
    """Returns the ids int32[n] of each text."""
    return [np.array(found.ids, np.int32) for found in self.model.encode_batch(list(texts), add_special_tokens=False)]

  def _decode(self, ids: list[int]) -> str:
    return self.model.decode(ids, skip_special_tokens=True)

  def id(self, piece: str) -> int | None:
    """Returns the id of a piece, or None."""
    return self.model.token_to_id(piece)

  def __setstate__(self, state: dict[str, Any]):
    self.__dict__.update(state)
    self._plain()  # not part of what the library pickles


def digest(data: bytes) -> str:
  """Returns the 128-bit BLAKE2b hash of bytes, in hex."""
  return hashlib.blake2b(data, digest_size=16).hexdigest()


def check(name: str, *, first: str | None, is_pad: bool, eos: int) -> None:
  """Raises UserError unless id 0 of the file `name` is padding and it has an end of text.

  Args:
    name: the file.
    first: the piece with id 0.
    is_pad: whether that piece is padding.
    eos: the id of the end of text, -1 without.
  """
  if not is_pad:
    raise UserError(f"tokenizer: {name}: found id 0 = {first!r}, expected the padding, such as <pad> or [PAD]")
  if eos < 0:
    raise UserError(f"tokenizer: {name}: found no end of text, expected a piece such as {' or '.join(ENDS[:2])}")


def _letters(piece: str) -> int:
  if _BYTE.fullmatch(piece):
    return 1
  return len(piece.removeprefix("##").replace(_SPACE, " ").encode("utf-8"))


def _lengths(lengths: Iterable[int]) -> np.ndarray:
  return np.minimum(list(lengths), 255).astype(np.uint8)


def _line(error: Exception) -> str:
  return (str(error).splitlines() or [type(error).__name__])[0][:200]
