"""What a tokenizer is, ByT5's bytes, and `open_tokenizer`, which opens one from its name in a config."""

import abc
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssljax.errors import UserError, nearest

PAD = 0  # the one id everything that packs and masks may rely on
MAX_BYTES = 256 * 2**20  # a vocabulary is a few megabytes


class Tokenizer(abc.ABC):
  """Text as token ids and back. It survives pickling.

  Attributes:
    size: the number of ids; every id is in [0, size).
    pad: 0, always: the id of padding and of the decoder's start.
    bos: the id that its models want before a text (BERT's [CLS]), None for none; `encode` does not add it.
    eos: the id that ends a text; `encode` does not add it.
    fingerprint: what stands for this tokenizer in the names of cached files: "bytes" or a hash of the file in hex.
    bytes_of: uint8[size], the UTF-8 bytes of text an id stands for; 0 for special ids, at most 255.
    file: what its file is called beside a released model; "" of bytes, which have none.
    data: what is in it, as it was read.
  """

  size: int
  pad: int = PAD
  bos: int | None = None
  eos: int
  fingerprint: str
  bytes_of: np.ndarray
  file: str = ""
  data: bytes = b""

  @abc.abstractmethod
  def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
    """Returns the ids int32[n] of each text, without eos; text that looks like a special token stays text."""

  @abc.abstractmethod
  def _decode(self, ids: list[int]) -> str:
    """Returns the text of ids that are all in [0, size)."""

  @abc.abstractmethod
  def id(self, piece: str) -> int | None:
    """Returns the id of a piece as the vocabulary spells it, such as "</s>" or "<0x0A>", or None."""

  def decode(self, ids: Sequence[int] | np.ndarray) -> str:
    """Returns the text of token ids [n]; special ids and ids outside the vocabulary (sentinels) are left out."""
    return self._decode([int(i) for i in ids if 0 <= i < self.size])


class ByteTokenizer(Tokenizer):
  """The UTF-8 bytes of a text: byte b is id b + 3, below are pad 0, eos 1 and unk 2; 259 ids.

  Source: ByT5: Towards a Token-Free Future with Pre-trained Byte-to-Byte Models, Xue et al. 2021, arXiv:2105.13626.
  Differs from the reference: no 125 extra ids for sentinels; whoever needs them counts on from `size`. Bytes that are
  no UTF-8 decode to U+FFFD instead of nothing.
  """

  specials = ("<pad>", "</s>", "<unk>")
  size = 256 + len(specials)
  eos = 1
  fingerprint = "bytes"

  def __init__(self):
    self.bytes_of = (np.arange(self.size) >= len(self.specials)).astype(np.uint8)

  def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
    """Returns one id a byte, int32[n], for each text."""
    offset = len(self.specials)
    return [np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int32) + offset for text in texts]

  def _decode(self, ids: list[int]) -> str:
    offset = len(self.specials)
    return bytes(i - offset for i in ids if i >= offset).decode("utf-8", "replace")

  def id(self, piece: str) -> int | None:
    """Returns the id of "<pad>", "</s>", "<unk>" or of a byte as "<0x0A>", or None."""
    pieces = (*self.specials, *(f"<0x{byte:02X}>" for byte in range(256)))
    return pieces.index(piece) if piece in pieces else None


def open_tokenizer(where: str) -> Tokenizer:
  """Returns the tokenizer named "bytes", or the one in FILE.model (SentencePiece) or FILE.json (Hugging Face).

  Raises:
    UserError: no such file, a file of another kind, damaged or above 256 MB; a package that is not installed; an id 0
      that is not padding; no end of text.
  """
  if where == "bytes":
    return ByteTokenizer()
  path = Path(where).expanduser()
  if path.suffix not in (".model", ".json"):
    raise UserError(f"tokenizer: found {nearest(where, ('bytes', 'FILE.model', 'FILE.json'))}")
  data = _read(path)
  from ssljax.data import tokenizer_files as files

  kind = files.SentencePieceTokenizer if path.suffix == ".model" else files.HuggingFaceTokenizer
  return kind(data, name=str(path))


def require(package: str, *, why: str, extra: str = "text") -> None:
  """Raises UserError when an optional package for text is not installed.

  Args:
    package: its import name.
    why: what needs it, the beginning of the line.
    extra: which of this project's extras brings it.
  """
  try:
    found = importlib.util.find_spec(package) is not None
  except ValueError:  # what find_spec makes of a module that is set to None
    found = False
  if not found:
    raise UserError(f'{why} needs {package}: pip install "ssljax[{extra}]"')


def _read(path: Path) -> bytes:
  try:
    with open(path, "rb") as file:
      data = file.read(MAX_BYTES + 1)
  except OSError as error:
    raise UserError(f"tokenizer: {path}: {error.strerror}, expected a readable file") from None
  if not 0 < len(data) <= MAX_BYTES:
    found = f"more than {MAX_BYTES:,} bytes" if data else "an empty file"
    raise UserError(f"tokenizer: {path}: found {found}, expected a vocabulary")
  return data
