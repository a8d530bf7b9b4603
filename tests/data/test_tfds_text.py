import pickle
import sys
import warnings

import numpy as np
import pytest

from ssljax.data.documents import open_documents
from ssljax.errors import UserError

with warnings.catch_warnings():
  warnings.simplefilter("ignore")
  tfds = pytest.importorskip("tensorflow_datasets")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  """A data directory with the sets `prose` (12 training and 5 test texts) and `numbers` (no text)."""

  class Base(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
      features = tfds.features.FeaturesDict(self.features())
      return tfds.core.DatasetInfo(builder=self, features=features, license="CC0")

    def _split_generators(self, _):
      return {"train": self._generate_examples(range(12)), "test": self._generate_examples(range(12, 17))}

    def _generate_examples(self, numbers):
      for i in numbers:
        yield i, {key: i if key == "id" else f"text é {i}" for key in self.features()}

  class Prose(Base):
    features = staticmethod(lambda: {"id": np.int64, "body": tfds.features.Text()})

  class Numbers(Base):
    features = staticmethod(lambda: {"id": np.int64})

  folder = tmp_path_factory.mktemp("tfds")
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for kind in (Prose, Numbers):
      kind(data_dir=folder, file_format="array_record").download_and_prepare()
  return folder


@pytest.fixture(autouse=True)
def data_dir(root, monkeypatch):
  monkeypatch.setenv("TFDS_DATA_DIR", str(root))


def test_texts_are_read_without_tensorflow():
  for split, numbers in (("train", range(12)), ("test", range(12, 17)), ("all", range(17))):
    documents = open_documents("tfds:prose", split=split)
    assert {documents.read(row) for row in range(len(documents))} == {f"text é {i}" for i in numbers}
  assert "tensorflow" not in sys.modules
  test = open_documents("tfds:prose", split="test")
  assert test.licence == "CC0" and test.name(3) == "prose/test[3]"
  again = pickle.loads(pickle.dumps(test))
  assert again.read(2) == test.read(2) and again.fingerprint == open_documents("tfds:prose", split="test").fingerprint


def test_a_set_without_text_is_named(monkeypatch):
  with pytest.raises(UserError, match="tfds:numbers has no text, it has id"):
    open_documents("tfds:numbers")
  with pytest.raises(UserError, match=r"no prepared set pros .did you mean prose"):
    open_documents("tfds:pros")
  monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
  with pytest.raises(UserError, match="needs tensorflow-datasets"):
    open_documents("tfds:prose")
