"""A work directory: its config, what it was resumed with, where a step in it is named `DIR@STEP`."""

import json
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

from ssljax import distributed
from ssljax.errors import UserError


def prepare(folder: str) -> pathlib.Path:
  """Returns the work directory, made and writable.

  Raises:
    UserError: it is a file, or cannot be written.
  """
  path = pathlib.Path(folder)
  try:
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):
      pass
  except OSError as error:
    raise UserError(f"--workdir: cannot write to {folder} ({error.strerror}), expected a writable folder") from error
  return path


def read_config(folder: pathlib.Path) -> dict[str, Any]:
  """Returns the resolved config of a run.

  Raises:
    UserError: there is none.
  """
  file = folder / "config.json"
  if not file.is_file():
    raise UserError(f"--workdir: {folder} has no config.json, expected the work directory of a run")
  return json.loads(file.read_text("utf-8"))


def write_json(file: pathlib.Path, content: Mapping[str, Any]) -> None:
  """Writes a JSON file that is whole or absent: written aside, then renamed; one process of a run does."""
  if not distributed.is_main():
    return
  file.parent.mkdir(parents=True, exist_ok=True)
  aside = file.with_suffix(".partial")
  aside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
  aside.replace(file)


def split_step(text: str, flag: str) -> tuple[pathlib.Path, int | None]:
  """Returns (folder, step) of `DIR[@STEP]`; step None is the newest.

  Raises:
    UserError: no such folder, or a step that is no number.
  """
  folder, at, step = text.rpartition("@") if "@" in text else (text, "", "")
  if at and not step.isdecimal():
    raise UserError(f"{flag}: found step {step!r}, expected DIR@STEP with a number")
  if not pathlib.Path(folder).is_dir():
    raise UserError(f"{flag}: no folder {folder}")
  return pathlib.Path(folder), int(step) if at else None
