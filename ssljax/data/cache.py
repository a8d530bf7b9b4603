"""Files worked out once: a folder a key, whole or absent."""

import hashlib
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from ssljax.errors import UserError


def root() -> Path:
  """Returns the folder of everything cached: $SSLJAX_CACHE, or ~/.cache/ssljax."""
  return Path(os.environ.get("SSLJAX_CACHE") or "~/.cache/ssljax").expanduser()


def key(*parts: object) -> str:
  """Returns the 128-bit BLAKE2b hash, in hex, of values that have one spelling: strings, numbers, tuples of them."""
  return hashlib.blake2b(repr(parts).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def cached(folder: Path, build: Callable[[Path], None]) -> Path:
  """Returns `folder`, which `build` has filled, now or in an earlier run.

  It is filled aside and renamed, so it is whole or absent, also when several processes build it at once: the first to
  finish wins.

  Raises:
    UserError: the cache cannot be written.
  """
  if folder.is_dir():
    return folder
  aside = folder.parent / f".partial-{uuid.uuid4().hex}"
  try:
    aside.mkdir(parents=True)
  except OSError as error:
    raise _unwritable(folder.parent, error) from None
  try:
    build(aside)
    aside.rename(folder)
  except OSError as error:
    if error.filename is not None and not str(error.filename).startswith(str(folder.parent)):
      raise  # what was read, not what was written
    if not folder.is_dir():
      raise _unwritable(folder.parent, error) from None
  finally:
    shutil.rmtree(aside, ignore_errors=True)
  return folder


def _unwritable(folder: Path, error: OSError) -> UserError:
  return UserError(f"cache: cannot write to {folder} ({error.strerror}), expected a writable folder in $SSLJAX_CACHE")
