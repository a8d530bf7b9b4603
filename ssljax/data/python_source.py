"""The interpreter's own standard library as text: real source code on every machine, nothing to download."""

import hashlib
import os
import sysconfig
from pathlib import Path

from ssljax.data.documents import Documents, decode

# What is not installed everywhere, and encodings/: a hundred tables of characters, a sixth of all bytes.
LEFT_OUT = frozenset(
  {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "encodings", "__pycache__"}
)


def open_standard_library() -> "PythonSource":
  """Returns the standard library's source files."""
  return PythonSource(Path(sysconfig.get_paths()["stdlib"]))


class PythonSource(Documents):
  """The files *.py below `root`, sorted; of files with equal bytes the first. Tests, idlelib and tables are left out.

  The fingerprint is of the contents: it is the same wherever the same Python is installed. Which files there are
  depends on the version of Python, and so does a number measured on them.
  """

  licence = "PSF-2.0"

  def __init__(self, root: Path):
    self.root, self.paths = root, []
    seen, whole = set(), hashlib.blake2b(digest_size=16)
    for path in sorted(source_files(root)):
      data = (root / path).read_bytes()
      digest = hashlib.blake2b(data, digest_size=16).digest()
      if not data.strip():
        self.empty += 1
      elif digest not in seen:
        seen.add(digest)
        self.paths.append(path)
        self.replaced += decode(data)[1]
        whole.update(path.encode("utf-8", "surrogateescape") + b"\0" + digest)
    self.fingerprint = whole.hexdigest()

  def __len__(self) -> int:
    return len(self.paths)

  def read(self, row: int) -> str:
    """Returns a whole file."""
    return decode((self.root / self.paths[row]).read_bytes())[0]

  def name(self, row: int) -> str:
    """Returns the path of the file."""
    return str(self.root / self.paths[row])

  def group(self, row: int) -> str:
    """Returns the file's package, or its name at the top: the files of one package are much alike."""
    return self.paths[row].partition("/")[0]


def source_files(root: Path, *, left_out: frozenset[str] = LEFT_OUT) -> list[str]:
  """Returns the files *.py below a folder, as paths from there, without those in folders of the names `left_out`."""
  found = []
  for folder, subfolders, files in os.walk(root):
    subfolders[:] = [name for name in subfolders if name not in left_out]
    below = Path(folder).relative_to(root)
    found += [(below / name).as_posix() for name in files if name.endswith(".py")]
  return found
