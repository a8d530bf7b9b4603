"""Our tokenizers as those of Hugging Face's `tokenizers`: the same ids for the same text."""

from typing import Any

from ssljax.data.tokenizer import ByteTokenizer, Tokenizer
from ssljax.data.tokenizer_files import SentencePieceTokenizer
from ssljax.export import unigram


def misfit(tokenizer: Tokenizer) -> str | None:
  """Returns why a tokenizer cannot be written as one of `tokenizers`, None where it can."""
  if not isinstance(tokenizer, SentencePieceTokenizer):
    return None
  try:
    return unigram.misfit(unigram.read(tokenizer.data))
  except Exception as error:  # ImportError, or protobuf's VersionError, which older versions do not have
    return f"a SentencePiece model that protobuf does not read ({str(error).splitlines()[0]})"


def convert(tokenizer: Tokenizer) -> Any:
  """Returns the `tokenizers.Tokenizer` of one that fits: no truncation, padding or template."""
  if isinstance(tokenizer, ByteTokenizer):
    return _bytes(tokenizer)
  if isinstance(tokenizer, SentencePieceTokenizer):
    return unigram.convert(unigram.read(tokenizer.data))
  import tokenizers

  made = tokenizers.Tokenizer.from_str(tokenizer.data.decode("utf-8"))
  made.no_truncation()
  made.no_padding()
  made.post_processor = None
  return made


def _bytes(tokenizer: ByteTokenizer) -> Any:
  """Returns a byte-level BPE that never merges."""
  import tokenizers
  from tokenizers import decoders, models, pre_tokenizers

  pieces = [*tokenizer.specials, *map(_letter, range(256))]
  made = tokenizers.Tokenizer(models.BPE({piece: number for number, piece in enumerate(pieces)}, []))
  made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
  made.decoder = decoders.ByteLevel()
  made.add_special_tokens([tokenizers.AddedToken(name, special=True, normalized=False) for name in tokenizer.specials])
  return made


def _letter(byte: int) -> str:
  """Returns the character that byte-level tokenizers write for a byte: itself, or one from U+0100 on if invisible.

  Source: Language Models are Unsupervised Multitask Learners, Radford et al. 2019, the released encoder.
  """
  shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
  hidden = [number for number in range(256) if number not in shown]
  return chr(byte) if byte in shown else chr(0x100 + hidden.index(byte))
