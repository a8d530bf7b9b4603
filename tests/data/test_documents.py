import pickle
import sysconfig
from pathlib import Path

import pytest

from ssljax.data.documents import decode, open_documents
from ssljax.data.embedded_texts import catalogue
from ssljax.data.python_source import PythonSource
from ssljax.data.source import open_source
from ssljax.data.split import in_test
from ssljax.errors import UserError


@pytest.mark.parametrize(
  ("spec", "says"),
  [
    ("texts:x", "unknown kind texts (did you mean text?"),
    ("text:", "'text:' names no data, expected text:GLOB"),
    ("text", "'text' names no data"),
    ("folder:x", "folder:x holds pictures, expected text: text:GLOB, embedded:python or tfds:NAME"),
    ("embedded:photos", "embedded:photos holds pictures, expected text: embedded:python"),
    ("embedded:photos-96", "holds pictures"),
    ("embedded:pyton", "unknown text pyton (did you mean python?"),
  ],
)
def test_what_is_no_text_is_named(spec, says):
  with pytest.raises(UserError) as error:
    open_documents(spec)
  assert says in str(error.value)


@pytest.mark.parametrize("spec", ["text:x.txt", "embedded:python"])
def test_text_is_no_picture(spec):
  with pytest.raises(UserError, match=f"{spec} holds text, expected pictures: "):
    open_source(spec, image_size=8)


def test_the_standard_library():
  everything, train, test = (open_documents("embedded:python", split=split) for split in ("all", "train", "test"))
  names = [everything.name(row) for row in range(len(everything))]
  root = Path(sysconfig.get_paths()["stdlib"])
  assert names == sorted(names) and str(root / "ast.py") in names and everything.licence == "PSF-2.0"
  assert not [name for name in names if "/test/" in name or "site-packages" in name or "/idlelib/" in name]
  assert everything.read(names.index(str(root / "ast.py"))) == (root / "ast.py").read_text("utf-8")
  assert len(train) + len(test) == len(everything) == catalogue()[0].items > 100
  assert len({everything.fingerprint, train.fingerprint, test.fingerprint}) == 3
  assert all(in_test(test.group(row)) and not in_test(train.group(row)) for row in range(len(test)))
  assert test.group(0) == Path(test.name(0)).relative_to(root).parts[0]
  again = pickle.loads(pickle.dumps(test))
  assert again.read(1) == test.read(1) and again.fingerprint == test.fingerprint


def test_equal_and_empty_files_count_once_and_never(tmp_path):
  for name, data in {"b.py": b"x = 1\n", "a/c.py": b"x = 1\n", "e.py": b" \n", "t.txt": b"no", "bad.py": b"#\xff\n",
                     "test/t.py": b"y", "site-packages/s.py": b"z"}.items():  # fmt: skip
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(data)
  found = PythonSource(tmp_path)
  assert found.paths == ["a/c.py", "bad.py"] and (found.empty, found.replaced) == (1, 1)
  assert found.read(1) == "#\ufffd\n"
  (tmp_path / "bad.py").write_bytes(b"#!\n")
  assert PythonSource(tmp_path).fingerprint != found.fingerprint


def test_only_what_is_no_text_counts_as_replaced():
  assert decode("\ufffdé".encode()) == ("\ufffdé", 0)
  assert decode("\ufffd".encode() + b"a\xffb\xe2\x82") == ("\ufffda\ufffdb\ufffd", 2)
