"""CLIP's tokenizer: its vocabulary read from a package that ships it or from a path, its ids those of the original."""

import contextlib
import gzip
import html
import importlib.util
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssljax.data.tokenizer import Tokenizer, require
from ssljax.data.tokenizer_files import digest
from ssljax.errors import UserError

FILE = "bpe_simple_vocab_16e6.txt.gz"
PACKAGES = ("clip", "open_clip")  # import names of openai-clip and open_clip_torch; neither is ever imported
MERGES = 49_152 - 256 - 2  # the file holds more lines than CLIP reads
SPECIALS = ("<|startoftext|>", "<|endoftext|>")
MAX_BYTES = 64 * 2**20  # of the vocabulary, unpacked; it is 3 MB
_WORDS = r"(?i)'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
_PLAIN = re.compile(r"[ -%'-~]*")  # ASCII without "&": nothing of it is mended
_END = "</w>"  # ends the last piece of a word


class CLIPTokenizer(Tokenizer):
  """CLIP's byte-level BPE over lower-case words: 49,406 pieces, then the start and the end of a text.

  Id 0, with which CLIP pads, is the piece "!" as well: padding can be told from text only by the end of the text.

  Source: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021, arXiv
  2103.00020; clip/simple_tokenizer.py there.
  Differs from the reference: what is spelled like a special token stays text.
  """

  def __init__(self, data: bytes, *, name: str):
    for package in ("tokenizers", "ftfy"):
      require(package, why=f"tokenizer: {name}", extra="clip")
    merges = _merges(data, name)
    alphabet = _alphabet()
    self.pieces = [*alphabet, *(letter + _END for letter in alphabet), *("".join(pair) for pair in merges), *SPECIALS]
    self.bos, self.eos = len(self.pieces) - 2, len(self.pieces) - 1
    self.size, self.fingerprint = len(self.pieces), f"clip-{digest(data)}"
    self._ids = {piece: number for number, piece in enumerate(self.pieces)}
    self._byte = {letter: byte for byte, letter in zip(_bytes(), alphabet, strict=True)}
    self.bytes_of = np.array([len(piece.removesuffix(_END)) for piece in self.pieces[:-2]] + [0, 0]).astype(np.uint8)
    self.model = _model(self._ids, merges)

  def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
    """Returns the ids int32[n] of each text, cleaned, without start and end."""
    found = self.model.encode_batch([clean(text) for text in texts], add_special_tokens=False)
    return [np.array(text.ids, np.int32) for text in found]

  def _decode(self, ids: list[int]) -> str:
    words = (self.pieces[i] for i in ids if i < self.bos)
    spaced = (word.removesuffix(_END) + " " if word.endswith(_END) else word for word in words)
    return bytes(self._byte.get(letter, 0x20) for word in spaced for letter in word).decode("utf-8", "replace").strip()

  def id(self, piece: str) -> int | None:
    """Returns the id of a piece such as "dog</w>", or None."""
    return self._ids.get(piece)


def open_clip_tokenizer(path: str | None = None) -> CLIPTokenizer:
  """Returns CLIP's tokenizer, its vocabulary from a path or, with None, from the first package that ships it.

  Raises:
    UserError: no package ships it, no such file, or a file that is something else.
  """
  file = _find() if path is None else Path(path).expanduser()
  try:
    with gzip.open(file, "rb") as packed:
      data = packed.read(MAX_BYTES + 1)
  except (OSError, EOFError, zlib.error) as error:
    found = getattr(error, "strerror", None) or str(error)
    raise UserError(f"tokenizer: {file}: {found}, expected {FILE}") from None
  return CLIPTokenizer(data, name=str(file))


def clean(text: str) -> str:
  """Returns a text as CLIP reads it: mended (ftfy), without HTML entities, its white space single, in lower case."""
  if not _PLAIN.fullmatch(text):
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text)))
  return " ".join(text.split()).lower()


def _find() -> Path:
  for package in PACKAGES:
    with contextlib.suppress(ValueError):  # what find_spec makes of a module that is set to None
      spec = importlib.util.find_spec(package)
      for folder in (spec and spec.submodule_search_locations) or ():
        if (file := Path(folder) / FILE).is_file():
          return file
  raise UserError(
    f'tokenizer: clip needs the file {FILE}: pip install "ssljax[clip]" (the package openai-clip ships it; or pip '
    f"install --no-deps open_clip_torch, or write the path of the file instead of clip)"
  )


def _merges(data: bytes, name: str) -> list[tuple[str, str]]:
  """Returns the pairs of pieces that become one, the first ones first."""
  try:
    pairs = [tuple(line.split()) for line in data.decode("utf-8").split("\n")[1 : MERGES + 1]]
  except UnicodeDecodeError:
    pairs = []
  if len(pairs) != MERGES or any(len(pair) != 2 for pair in pairs):
    raise UserError(f"tokenizer: {name}: found no {MERGES:,} merges, expected {FILE}")
  return pairs


def _bytes() -> list[int]:
  """Returns all bytes in the order of their ids: the visible ones of Latin-1 first."""
  visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
  return [*visible, *(byte for byte in range(256) if byte not in visible)]


def _alphabet() -> list[str]:
  """Returns the letters that stand for the bytes in the order of their ids; none is white space."""
  hidden = iter(range(256, 512))
  return [chr(byte) if 0x20 < byte < 0x7F or (byte > 0xA0 and byte != 0xAD) else chr(next(hidden)) for byte in _bytes()]


def _model(ids: dict[str, int], merges: list[tuple[str, str]]) -> Any:
  from tokenizers import Regex, Tokenizer, models, pre_tokenizers

  model = Tokenizer(models.BPE(ids, merges, end_of_word_suffix=_END, continuing_subword_prefix=""))
  split = pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True)
  letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
  model.pre_tokenizer = pre_tokenizers.Sequence([split, letters])
  return model
