import pickle

import pytest

from ssljax.data import docstrings as source
from ssljax.data.documents import open_documents
from ssljax.data.source import open_source
from ssljax.errors import UserError

CODE = '''"""The module.

  Shifted:
    kept.
"""


class Public:
  """A class."""

  def method(self):
    """A method."""

    def inner():
      """Not reached."""

  def _hidden(self):
    """Private."""


def same():
  """A method."""


async def later():
  """Soon \\ud800 half."""
'''


@pytest.fixture
def sources(tmp_path, monkeypatch):
  for name, code in {
    "a.py": CODE,
    "b/__init__.py": '"""Package b."""',
    "b/tests/t.py": '"""A test."""',
    "b/_vendor/v.py": '"""A copy."""',
    "bad.py": "def (",
    "nul.py": "\0",
    "odd.py": "x = '\\d'",
  }.items():
    (tmp_path / "code" / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "code" / name).write_text(code)
  monkeypatch.setattr(source, "_roots", lambda: iter([(tmp_path / "code", ()), (tmp_path / "code", ("again",))]))
  monkeypatch.setenv("SSLJAX_CACHE", str(tmp_path / "cache"))


def test_public_docstrings_once_in_order(sources):
  found = open_documents("embedded:docstrings", split="all")
  names = [found.name(row) for row in range(len(found))]
  assert names == ["a", "a.Public", "a.Public.method", "a.later", "b"]
  assert found.read(0) == "The module.\n\nShifted:\n  kept." and found.read(3) == "Soon ? half."
  assert [found.group(row) for row in range(5)] == ["a", "a", "a", "a", "b"] and "BSD" in found.licence
  again = pickle.loads(pickle.dumps(found))
  assert again.read(4) == "Package b." and again.fingerprint == found.fingerprint


def test_a_package_that_is_missing_is_named(monkeypatch):
  monkeypatch.setitem(source.PACKAGES, "no_such_package", "none")
  with pytest.raises(UserError, match=r'embedded:docstrings needs no_such_package: pip install "ssljax\[data\]"'):
    open_documents("embedded:docstrings")


def test_docstrings_are_no_pictures():
  with pytest.raises(UserError, match="embedded:docstrings holds text, expected pictures"):
    open_source("embedded:docstrings", image_size=8)
