"""From a config section to an object: the section's keys are the constructor's keyword arguments, `name` picks it.

There is no registry. `{"name": "moco.MoCo", "temperature": 0.2}` in the section `objective` is the class `MoCo` of
`ssljax/objectives/moco.py`; `"my_pkg.my_file:Mine"` comes from anywhere on the path. Everything is checked against the
constructor's signature and annotations before anything compiles.
"""

import ast
import dataclasses
import importlib
import importlib.util
import inspect
import pathlib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from ssljax.errors import UserError, nearest

# Which package serves a parameter annotated with a class of this name: how sections nest without a registry.
PARTS = {"Module": "models", "Objective": "objectives", "Schedule": "schedules"}
# What a class has that a section can name, where a package holds the parts of such classes, too. (The embedding's width
# of a network, what views are made, the call of an evaluator.)
CHOICES = {"models": {"features"}, "augment": {"produces", "programs"}, "evaluators": {"__call__"}}
FLAX_FIELDS = ("parent", "name")  # every Linen module has them; no config key sets them


def names(package: str) -> list[str]:
  """Returns the names a section of `package` can have: public classes (of `CHOICES`) or functions, unimported.

  Args:
    package: "objectives", "models", "evaluators", "augment", or a single file such as "schedules", "optim".
  """
  spec = importlib.util.find_spec(f"ssljax.{package}")
  assert spec is not None and spec.origin is not None, package
  origin = pathlib.Path(spec.origin)
  if origin.name != "__init__.py":
    return [node.name for node in _nodes(origin, ast.FunctionDef) if not node.name.startswith("_")]
  files = sorted(path for path in origin.parent.glob("*.py") if path.name != "__init__.py")
  return [f"{path.stem}.{name}" for path in files for name in _classes(path, CHOICES.get(package, set()))]


def _classes(path: pathlib.Path, choice: set[str]) -> list[str]:
  """Returns the public classes of a file that have one of these methods, or whose bases in the same file do."""
  methods = {}
  for node in _nodes(path, ast.ClassDef):
    own = {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
    bases = (methods.get(base.id, set()) for base in node.bases if isinstance(base, ast.Name))
    methods[node.name] = own.union(*bases)
  return [name for name, has in methods.items() if not name.startswith("_") and (not choice or choice & has)]


def _nodes(path: pathlib.Path, kind: type) -> list[Any]:
  return [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, kind)]


def resolve(name: str, package: str, *, where: str) -> Callable[..., Any]:
  """Returns the class or function called `name` in `package`, or "module:attribute" from anywhere.

  Raises:
    UserError: nothing has this name; the message lists what does, the nearest first.
  """
  if ":" in name:
    module, attribute = name.split(":", 1)
  else:
    prefix, _, attribute = name.rpartition(".")
    module = ".".join(filter(None, ("ssljax", package, prefix)))
  try:
    found = importlib.util.find_spec(module) is not None
  except (ModuleNotFoundError, ValueError):
    found = False
  if not found or not attribute:
    raise UserError(f"{where}.name: nothing is called {nearest(name, names(package))}")
  target = getattr(importlib.import_module(module), attribute, None)
  if not callable(target):
    options = names(package) if ":" not in name else _module_names(module)
    raise UserError(f"{where}.name: nothing is called {nearest(name, options)}")
  return target


def _module_names(module: str) -> list[str]:
  loaded = importlib.import_module(module)
  return [f"{module}:{key}" for key, value in vars(loaded).items() if callable(value) and not key.startswith("_")]


def build(section: Mapping[str, Any], package: str, *, where: str, **given: Any) -> Any:
  """Returns what the section names, built with the section's keys as keyword arguments.

  Args:
    section: a mapping with the key "name".
    package: where plain names are looked up.
    where: the section's place in the config, for messages ("objective.encoder").
    **given: values the program knows (batch_size); passed where the constructor takes them.

  Raises:
    UserError: unknown key or name, missing key, wrong type.
  """
  if not isinstance(section, Mapping) or not isinstance(section.get("name"), str):
    raise UserError(f"{where}: found {section!r}, expected a section with a name, one of {', '.join(names(package))}")
  target = resolve(section["name"], package, where=where)
  values = {key: value for key, value in section.items() if key != "name"}
  return construct(target, values, where=where, **given)


def construct(target: Callable[..., Any], values: Mapping[str, Any], *, where: str = "", **given: Any) -> Any:
  """Returns target(**values) after checking every key and type against its signature; see `build`."""
  parameters = _parameters(target)
  settable = {key for key in parameters if key not in given}
  for key in values:
    if key not in settable:
      raise UserError(f"{_join(where, '')}unknown key {nearest(key, settable)}")
  arguments = {key: _convert(value, parameters[key][0], _join(where, key)) for key, value in values.items()}
  arguments |= {key: value for key, value in given.items() if key in parameters}
  missing = [key for key, (_, required) in parameters.items() if required and key not in arguments]
  if missing:
    raise UserError(f"{_join(where, missing[0])}: missing, expected {_spell(parameters[missing[0]][0])}")
  try:
    return target(**arguments)
  except UserError as error:
    raise UserError(f"{where}: {error}" if where and not str(error).startswith(where) else str(error)) from error


def _join(where: str, key: str) -> str:
  return f"{where}.{key}" if where and key else f"{where}: " if where else key


def _parameters(target: Callable[..., Any]) -> dict[str, tuple[Any, bool]]:
  """Returns {parameter: (annotation, required)} of a class or function."""
  hints = typing.get_type_hints(target)
  signature = inspect.signature(target).parameters
  flax_module = any(base.__name__ == "Module" for base in getattr(target, "__mro__", ()))
  skipped = FLAX_FIELDS if flax_module else ()
  return {
    key: (hints.get(key, Any), parameter.default is inspect.Parameter.empty)
    for key, parameter in signature.items()
    if key not in skipped and parameter.kind is not inspect.Parameter.VAR_KEYWORD
  }


def _convert(value: Any, annotation: Any, where: str) -> Any:
  """Returns the value as the annotation wants it (sections built, lists to tuples, ints to floats)."""
  for option in _options(annotation):
    accepted, converted = _try(value, option, where)
    if accepted:
      return converted
  if value is None and "none" in typing.get_args(annotation):
    return "none"  # `--config.a.b=none` and JSON's null mean it where it is one of the choices
  if all(typing.get_origin(option) is Literal for option in _options(annotation)) and isinstance(value, str):
    raise UserError(f"{where}: unknown value {nearest(value, [str(v) for v in typing.get_args(annotation)])}")
  raise UserError(f"{where}: found {value!r} ({type(value).__name__}), expected {_spell(annotation)}")


def _options(annotation: Any) -> Sequence[Any]:
  if typing.get_origin(annotation) in (typing.Union, types.UnionType):
    return typing.get_args(annotation)
  return (annotation,)


def _try(value: Any, option: Any, where: str) -> tuple[bool, Any]:
  """Returns (accepted, converted value) for one alternative of an annotation."""
  origin, arguments = typing.get_origin(option), typing.get_args(option)
  if option is Any:
    return True, value
  if option is None or option is type(None):
    return value is None, None
  if origin is Literal:
    return value in arguments, value
  if origin is tuple:
    return _try_tuple(value, arguments, where)
  if origin is not None and issubclass(origin, Mapping):
    return isinstance(value, Mapping), value
  if origin is not None:
    return isinstance(value, origin), value
  package = _package(option)
  if package and isinstance(value, Mapping):
    return True, build(value, package, where=where)
  if dataclasses.is_dataclass(option) and isinstance(value, Mapping) and not package:
    return True, construct(typing.cast(type, option), value, where=where)
  if option is float:
    return isinstance(value, int | float) and not isinstance(value, bool), value
  if option is int:
    return isinstance(value, int) and not isinstance(value, bool), value
  return isinstance(value, option), value


def _try_tuple(value: Any, arguments: tuple[Any, ...], where: str) -> tuple[bool, Any]:
  if not isinstance(value, list | tuple):
    return False, None
  if len(arguments) == 2 and arguments[1] is Ellipsis:
    arguments = (arguments[0],) * len(value)
  if len(arguments) != len(value):
    return False, None
  return True, tuple(_convert(v, a, f"{where}[{i}]") for i, (v, a) in enumerate(zip(value, arguments, strict=True)))


def _package(option: Any) -> str | None:
  mro = getattr(option, "__mro__", ())
  return next((PARTS[base.__name__] for base in mro if base.__name__ in PARTS), None)


def _spell(annotation: Any) -> str:
  return " or ".join(
    "none"
    if option is type(None)
    else str(option).replace("typing.", "")
    if typing.get_origin(option)
    else getattr(option, "__name__", str(option))
    for option in _options(annotation)
  )
