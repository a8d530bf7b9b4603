import pickle
import shutil

import numpy as np
import pytest

from ssljax.data.source import open_all, open_source
from ssljax.errors import UserError


def test_class_folders_give_labels(folder):
  source = open_all(f"folder:{folder}", image_size=8)
  assert (len(source), source.class_names, source.num_classes) == (24, ("cat", "dog"), 2)
  assert source.keys == ("image", "aspect", "label")
  arrays, errors = source.read(np.array([0, 12, 23]))
  assert not errors and arrays["label"].tolist() == [0, 1, 1] and arrays["label"].dtype == np.int32
  assert arrays["image"].shape == (3, 8, 8, 3) and arrays["image"].dtype == np.uint8
  np.testing.assert_allclose(arrays["image"].mean((1, 2, 3)), [0, 10, 230], atol=1)
  np.testing.assert_allclose(arrays["aspect"], [16 / 12] * 3)
  assert source.name(12) == str(folder / "dog/deeper/01.jpg")


def test_train_and_val_folders_are_splits(folder, tmp_path):
  root = tmp_path / "split"
  shutil.copytree(folder, root / "train")
  (root / "val" / "dog").mkdir(parents=True)
  shutil.copy(folder / "dog/deeper/23.jpg", root / "val/dog/x.JPEG")
  train, test = (open_source(f"folder:{root}", split=split, image_size=4) for split in ("train", "test"))
  assert (len(train), len(test)) == (24, 1)
  assert train.class_names == test.class_names == ("cat", "dog")
  assert test.read(np.array([0])).arrays["label"].tolist() == [1]
  assert test.name(0).endswith("val/dog/x.JPEG")


def test_loose_files_have_no_labels(folder, tmp_path):
  root = tmp_path / "loose"
  root.mkdir()
  for i, file in enumerate(sorted(folder.rglob("*.jpg"))):
    shutil.copy(file, root / f"{i}.jpg")
  (root / "notes.txt").write_text("no picture")
  (root / ".hidden.jpg").write_text("no picture")
  source = open_all(f"folder:{root}", image_size=4)
  assert len(source) == 24 and source.num_classes is None and source.keys == ("image", "aspect")
  assert set(source.read(np.arange(2)).arrays) == {"image", "aspect"}


def test_a_moved_folder_splits_alike(folder, tmp_path):
  before = open_source(f"folder:{folder}", split="train", image_size=4)
  folder.rename(tmp_path / "elsewhere")
  after = open_source(f"folder:{tmp_path}/elsewhere", split="train", image_size=4)
  assert [before.group(i) for i in range(len(before))] == [after.group(i) for i in range(len(after))]


def test_a_corrupt_and_a_lost_file_cost_only_themselves(folder):
  source = open_all(f"folder:{folder}", image_size=4)
  (folder / "cat/deeper/02.jpg").write_bytes((folder / "cat/deeper/02.jpg").read_bytes()[:200])
  (folder / "cat/deeper/04.jpg").unlink()
  arrays, errors = source.read(np.arange(4))
  assert set(errors) == {1, 2} and errors[2] == "No such file or directory" and errors[1]
  np.testing.assert_allclose(arrays["image"].mean((1, 2, 3)), [0, 0, 0, 60], atol=1)
  assert arrays["aspect"].tolist()[1:3] == [1, 1]


def test_a_source_survives_pickling(folder):
  source = open_source(f"folder:{folder}", split="all[:50%]", image_size=4)
  again = pickle.loads(pickle.dumps(source))
  np.testing.assert_array_equal(again.read(np.arange(12)).arrays["image"], source.read(np.arange(12)).arrays["image"])


def test_wrong_paths_are_named(folder, tmp_path):
  (tmp_path / "empty").mkdir()
  wrong = {
    f"folder:{tmp_path}/nowhere": "found nothing, expected a directory",
    f"folder:{folder}/cat/deeper/02.jpg": "found a file, expected a directory",
    f"folder:{tmp_path}/empty": "holds no records",
  }
  for spec, says in wrong.items():
    with pytest.raises(UserError, match=says) as error:
      open_source(spec, split="train", image_size=4)
    assert str(tmp_path) in str(error.value)
