"""Real texts that come inside Python and its packages: nothing to download."""

from ssljax.data.docstrings import PACKAGES, Docstrings, open_docstrings
from ssljax.data.documents import Documents
from ssljax.data.embedded import Embedded
from ssljax.data.embedded import catalogue as pictures
from ssljax.data.python_source import PythonSource, open_standard_library
from ssljax.errors import UserError, nearest

NAMES = {"python": open_standard_library, "docstrings": open_docstrings}


def open_all(where: str) -> Documents:
  """Returns an embedded text: "python", the standard library's source files, or "docstrings".

  Raises:
    UserError: another name, a package that is not installed, or an interpreter without source files.
  """
  if where.partition("-")[0] in {line.name for line in pictures()}:
    raise UserError(f"data source: embedded:{where} holds pictures, expected text: embedded:python")
  if where not in NAMES:
    raise UserError(f"data source: embedded: unknown text {nearest(where, NAMES)}")
  return NAMES[where]()


def catalogue() -> tuple[Embedded, ...]:
  """Returns the embedded texts, a line each, as `embedded.catalogue` does the pictures; docstrings are not counted."""
  packages = {distribution: module for module, distribution in PACKAGES.items()}
  return (
    Embedded("python", "source files (text)", len(open_standard_library()), None, PythonSource.licence, {}),
    Embedded("docstrings", "documentation (text)", None, None, Docstrings.licence, packages),
  )
