"""One line of a file of pairs: what it may hold, and what is wrong with it. Lines come from outside: hostile."""

import base64
import binascii
import hashlib
import json
from typing import Any, NamedTuple

from ssljax.data.decode import MAX_BYTES, CorruptRecord

MAX_CAPTIONS = 1000
_MAX_BASE64 = -(-MAX_BYTES // 3) * 4
MAX_LINE = _MAX_BASE64 + 2**20  # bytes


class Pair(NamedTuple):
  """A picture and what is said of it.

  Attributes:
    path: of the picture, relative to the file; None where the line holds its bytes.
    base64: the bytes of the picture as the line spells them; None where it has a path.
    captions: none of them empty; there may be none.
    label: the name of its class, or None.
    group: what must not part between train and test; by default the picture itself.
  """

  path: str | None
  base64: str | None
  captions: tuple[str, ...]
  label: str | None
  group: str

  def picture(self) -> bytes:
    """Returns the bytes in the line; raises CorruptRecord where they are not base64."""
    assert self.base64 is not None
    try:
      return base64.b64decode(self.base64, validate=True)
    except (binascii.Error, ValueError) as error:
      raise CorruptRecord(f"bytes: no base64 ({error})") from None


def parse(line: bytes | None) -> Pair:
  """Returns the pair in a line of JSON; None stands for a line that was too long to be held.

  Raises:
    CorruptRecord: it holds none; the message says why.
  """
  if line is None:
    raise CorruptRecord(f"more than {MAX_LINE:,} bytes")
  try:
    found = json.loads(line)
  except (ValueError, RecursionError) as error:  # a ValueError too: bytes that are no UTF-8
    raise CorruptRecord(f"no JSON ({str(error)[:100]})") from None
  if not isinstance(found, dict):
    raise CorruptRecord(f"found {_kind(found)}, expected an object with image and caption")
  path, data = _picture(found)
  label, group = _text(found, "label"), _text(found, "group")
  return Pair(path, data, captions_of(found), label, group or path or _digest(data or ""))


def captions_of(found: dict[str, Any]) -> tuple[str, ...]:
  """Returns the captions in an object's `caption` (a text) or `captions` (a list of texts), the empty ones left out.

  Raises:
    CorruptRecord: something that is no text, or more than 1,000.
  """
  texts = found.get("captions")
  texts = [found.get("caption")] if texts is None else texts
  if not isinstance(texts, list) or len(texts) > MAX_CAPTIONS:
    raise CorruptRecord(f"captions: found {_kind(texts)}, expected a list of at most {MAX_CAPTIONS:,} texts")
  wrong = [text for text in texts if text is not None and not isinstance(text, str)]
  if wrong:
    raise CorruptRecord(f"caption: found {_kind(wrong[0])}, expected a text")
  return tuple(_whole(text) for text in texts if text and text.strip())


def _picture(found: dict[str, Any]) -> tuple[str | None, str | None]:
  """Returns (path, base64), one of which is None."""
  path, data = _text(found, "image"), _text(found, "bytes")
  if (path is None) == (data is None):
    raise CorruptRecord(f"found {'neither' if path is None else 'both'} image and bytes, expected one of them")
  if path is not None and "\0" in path:
    raise CorruptRecord(f"image: {path[:100]!r} is no path")
  if data is not None and len(data) > _MAX_BASE64:
    raise CorruptRecord(f"bytes: {len(data):,} characters, limit {_MAX_BASE64:,}")
  return path, data


def _text(found: dict[str, Any], key: str) -> str | None:
  text = found.get(key)
  if text is not None and (not isinstance(text, str) or not text):
    raise CorruptRecord(f"{key}: found {_kind(text)}, expected a text")
  return None if text is None else _whole(text)


def _whole(text: str) -> str:
  """Returns a text that can be written as UTF-8: JSON can spell half a character."""
  return text.encode("utf-8", "replace").decode("utf-8")


def _digest(text: str) -> str:
  return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _kind(value: Any) -> str:
  return f"{type(value).__name__} {str(value)[:40]!r}"
