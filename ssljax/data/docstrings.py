"""Documentation as text: the docstrings in the source of Python and of the packages that extra [data] brings."""

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import platform
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ssljax.data import cache as caches
from ssljax.data.documents import Documents, decode
from ssljax.data.python_source import LEFT_OUT, source_files
from ssljax.data.tokenizer import require

# Import name -> distribution. What is copied into them from others is left out with their tests.
PACKAGES = {
  "numpy": "numpy",
  "scipy": "scipy",
  "sklearn": "scikit-learn",
  "skimage": "scikit-image",
  "networkx": "networkx",
}
_COPIES = frozenset({"externals", "_externals", "_vendor", "extern", "_lib"})


class Docstring(NamedTuple):
  """One docstring: its module, the dotted name of what it documents, and its text without indentation."""

  module: str
  name: str
  text: str


class Docstrings(Documents):
  """The docstrings of the public modules, classes and functions of Python and of `PACKAGES`, equal ones once.

  A document is one docstring. Those of one module never part between train and test. Which there are depends on the
  installed versions, and so does a number measured on them; the fingerprint is of the contents.
  """

  licence = "PSF-2.0, BSD-3-Clause"
  lazy = ("_found",)

  def __init__(self, folder: Path):
    self._file = folder / "docstrings.json"
    self.fingerprint = hashlib.blake2b(self._file.read_bytes(), digest_size=16).hexdigest()

  @functools.cached_property
  def _found(self) -> list[Docstring]:
    return [Docstring(*line) for line in json.loads(self._file.read_text("utf-8"))]

  def __len__(self) -> int:
    return len(self._found)

  def read(self, row: int) -> str:
    """Returns a docstring."""
    return self._found[row].text

  def name(self, row: int) -> str:
    """Returns the dotted name of what it documents."""
    return self._found[row].name

  def group(self, row: int) -> str:
    """Returns the module."""
    return self._found[row].module


def open_docstrings() -> Docstrings:
  """Returns the docstrings, read out of the source files once for each set of versions.

  Raises:
    UserError: a package that is not installed.
  """
  for package in PACKAGES:
    require(package, why="data source: embedded:docstrings", extra="data")
  versions = tuple(importlib.metadata.version(distribution) for distribution in PACKAGES.values())
  key = caches.key("docstrings-2", platform.python_version(), *versions)
  return Docstrings(caches.cached(caches.root() / "docstrings" / key, _write))


def docstrings(path: Path, module: str) -> Iterator[Docstring]:
  """Yields the docstrings of the public names in a source file, from top to bottom; of one that is no Python none."""
  try:
    with warnings.catch_warnings(action="ignore"):  # such as escapes in strings that are none
      tree = ast.parse(decode(path.read_bytes())[0])
  except (SyntaxError, ValueError):
    return
  for name, text in _below(tree, module):
    yield Docstring(module, name, text.encode("utf-8", "replace").decode())  # source can spell half a character


def _below(
  node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str
) -> Iterator[tuple[str, str]]:
  if text := (ast.get_docstring(node) or "").strip():
    yield name, text
  if isinstance(node, ast.Module | ast.ClassDef):
    for child in node.body:
      if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not child.name.startswith("_"):
        yield from _below(child, f"{name}.{child.name}")


def _write(folder: Path) -> None:
  seen: dict[str, Docstring] = {}
  for root, prefix in _roots():
    for path in sorted(source_files(root, left_out=LEFT_OUT | _COPIES)):
      parts = path.removesuffix(".py").split("/")
      module = ".".join((*prefix, *(part for part in parts if part != "__init__")))
      for found in docstrings(root / path, module):
        seen.setdefault(found.text, found)
  (folder / "docstrings.json").write_text(json.dumps(list(seen.values()), ensure_ascii=False), "utf-8")


def _roots() -> Iterator[tuple[Path, tuple[str, ...]]]:
  """Yields folders of source files and what the names in them begin with."""
  yield Path(sysconfig.get_paths()["stdlib"]), ()
  for package in PACKAGES:
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None
    yield Path(spec.origin).parent, (package,)
