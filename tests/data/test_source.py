import subprocess
import sys

import pytest

from ssljax.data.source import open_source
from ssljax.errors import UserError


@pytest.mark.parametrize(
  ("spec", "says"),
  [
    ("folders:x", "unknown kind folders (did you mean folder?"),
    ("folder", "'folder' names no data, expected folder:DIR"),
    ("npz:", "'npz:' names no data, expected npz:FILE.npz"),
    ("", "unknown kind"),
  ],
)
def test_an_unknown_source_is_named(spec, says):
  with pytest.raises(UserError) as error:
    open_source(spec, split="train", image_size=8)
  assert says in str(error.value)


def test_an_empty_split_and_a_wrong_size_are_named(folder):
  for path in sorted(folder.rglob("*.jpg"))[1:]:
    path.unlink()
  with pytest.raises(UserError, match=r"'test' of folder:.* holds none of its 1 records"):
    open_source(f"folder:{folder}", split="test", image_size=8)
  with pytest.raises(UserError, match="image_size: found 0"):
    open_source(f"folder:{folder}", split="all", image_size=0)


def test_reading_loads_neither_jax_nor_tensorflow_nor_grain(folder):
  code = (
    "import sys, numpy as np; from ssljax.data.source import open_source; import ssljax.data.pipeline,"
    f" ssljax.data.prepare; open_source('folder:{folder}', split='all', image_size=8).read(np.arange(3));"
    " print([name for name in ('jax', 'tensorflow', 'grain', 'torch') if name in sys.modules])"
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert done.stdout.strip() == "[]"
