"""Config files: a recipe in Python or the config.json of a run, with overrides from the command line."""

import ast
import importlib.util
import inspect
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from ssljax.errors import UserError, nearest


def load_config(path: str, overrides: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
  """Returns the plain config of `configs/X.py[:variant]` (its `get_config(variant)`) or of a JSON file, overridden.

  Args:
    path: a Python file with `get_config`, or a config.json of a work directory.
    overrides: ("a.b", "value") pairs; values are Python literals, anything else is a string.

  Raises:
    UserError: the file is missing or has no get_config, or not this variant (its get_config takes none, or raises
      ValueError or a table's KeyError), or what an override takes for a section is none.
  """
  file, _, variant = path.partition(":")
  if not pathlib.Path(file).is_file():
    folder = pathlib.Path(file).parent
    raise UserError(f"--config: no file {nearest(file, [str(p) for p in folder.glob('*.py')])}")
  config = json.loads(pathlib.Path(file).read_text("utf-8")) if file.endswith(".json") else _python(file, variant)
  for key, text in overrides:
    _set(config, key, text)
  # One round through JSON: what a run sees is exactly what config.json holds and what a resume compares.
  return json.loads(json.dumps(config))


def _python(file: str, variant: str) -> dict[str, Any]:
  import ml_collections

  spec = importlib.util.spec_from_file_location("ssljax_config", file)
  assert spec is not None and spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  if not hasattr(module, "get_config"):
    raise UserError(f"--config: {file} has no function get_config(variant=None)")
  try:
    config = module.get_config(*_variant(module.get_config, variant, file))
  except (KeyError, ValueError) as error:
    if not variant or (isinstance(error, KeyError) and error.args != (variant,)):
      raise  # a mistake in the file, which its traceback shows
    said = "unknown variant" if isinstance(error, KeyError) else error
    raise UserError(f"--config: {file}:{variant}: {said}") from error
  return config.to_dict() if isinstance(config, ml_collections.ConfigDict) else dict(config)


def _variant(get_config: Callable[..., Any], variant: str, file: str) -> tuple[str, ...]:
  """Returns the arguments of `get_config`; refuses a variant where it takes none."""
  if variant and not inspect.signature(get_config).parameters:
    raise UserError(f"--config: {file} has no variants, found {variant!r}")
  return (variant,) if variant else ()


def _set(config: dict[str, Any], key: str, text: str) -> None:
  """Sets one key; a section that is not there is made, and refused later if nothing knows it."""
  *parents, last = key.split(".")
  section = config
  for depth, parent in enumerate(parents):
    if section.get(parent) is None:
      section[parent] = {}
    section = section[parent]
    if not isinstance(section, dict):
      place = ".".join(parents[: depth + 1])
      raise UserError(f"--config.{key}: {place} is {section!r}, expected a section")
  section[last] = _literal(text)


def _literal(text: str) -> Any:
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return {"true": True, "false": False, "none": None, "null": None}.get(text.lower(), text)
