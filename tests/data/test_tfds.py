import io
import pickle
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from ssljax.data.source import open_source
from ssljax.data.tfds import find
from ssljax.errors import UserError

with warnings.catch_warnings():
  warnings.simplefilter("ignore")
  tfds = pytest.importorskip("tensorflow_datasets")


def png(brightness):
  """The bytes of an 8 x 4 picture; TFDS would need TensorFlow to encode it."""
  out = io.BytesIO()
  Image.new("RGB", (8, 4), (brightness,) * 3).save(out, "PNG")
  return out.getvalue()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  """A data directory with the set `tiny`: 12 training and 5 test pictures, brightness 10 * id, label id % 3."""

  class Tiny(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.2.0")

    def _info(self):
      features = tfds.features.FeaturesDict(
        {
          "id": np.int64,
          "picture": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
          "class": tfds.features.ClassLabel(names=["red", "green", "blue"]),
        }
      )
      return tfds.core.DatasetInfo(builder=self, features=features, license="CC0")

    def _split_generators(self, _):
      return {"train": self._generate_examples(range(12)), "test": self._generate_examples(range(12, 17))}

    def _generate_examples(self, numbers):
      for i in numbers:
        yield i, {"id": i, "picture": png(10 * i), "class": i % 3}

  folder = tmp_path_factory.mktemp("tfds")
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    Tiny(data_dir=folder, file_format="array_record").download_and_prepare()
  return folder


@pytest.fixture(autouse=True)
def data_dir(root, monkeypatch):
  monkeypatch.setenv("TFDS_DATA_DIR", str(root))


@pytest.mark.parametrize("name", ["tiny", "tiny:1.2.0", "tiny/1.2.0", "FOLDER"])
def test_a_prepared_set_is_read_without_tensorflow(root, name):
  where = str(root / "tiny/1.2.0") if name == "FOLDER" else name
  for split, first, size in (("train", 0, 12), ("test", 12, 5), ("all", None, 17)):
    source = open_source(f"tfds:{where}", split=split, image_size=4)
    assert (len(source), source.num_classes, source.class_names) == (size, 3, ("red", "green", "blue"))
    arrays, errors = source.read(np.arange(size))
    number = np.round(arrays["image"].mean((1, 2, 3)) / 10).astype(int)
    assert not errors and source.licence == "CC0"
    assert sorted(number) == list(range(first, first + size) if first is not None else range(17))
    assert arrays["label"].tolist() == (number % 3).tolist() and (arrays["aspect"] == 2).all()
  assert "tensorflow" not in sys.modules


def test_it_survives_pickling_and_names_its_records():
  source = open_source("tfds:tiny", split="test", image_size=4)
  source.read(np.arange(2))
  again = pickle.loads(pickle.dumps(source))
  np.testing.assert_array_equal(again.read(np.arange(5)).arrays["image"], source.read(np.arange(5)).arrays["image"])
  assert source.name(3) == "tiny/test[3]"


def test_sets_that_are_not_there_are_named(root, monkeypatch):
  with pytest.raises(UserError, match=r"no prepared set tinny .did you mean tiny") as error:
    open_source("tfds:tinny", split="train", image_size=4)
  assert "tfds build tinny --file_format=array_record" in str(error.value) and "\n" not in str(error.value)
  monkeypatch.setenv("TFDS_DATA_DIR", str(root / "nowhere"))
  with pytest.raises(UserError, match="no prepared set mnist"):
    open_source("tfds:mnist", split="train", image_size=4)


def test_the_newest_version_is_taken_and_several_configurations_are_refused(tmp_path, monkeypatch):
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
  for folder in ("plain/1.9.0", "plain/1.10.0", "many/a/1.0.0", "many/b/1.0.0"):
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "dataset_info.json").write_text("{}")
  assert find("plain").name == "1.10.0" and find("many/b").parent.name == "b"
  with pytest.raises(UserError, match="several configurations, name one of many/a, many/b"):
    find("many")


def test_a_missing_package_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
  with pytest.raises(UserError, match=r'needs tensorflow-datasets: pip install "ssljax\[tfds\]"'):
    open_source("tfds:tiny", split="train", image_size=4)
