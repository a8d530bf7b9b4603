import pickle

import numpy as np
import pytest

from ssljax.data import npz
from ssljax.data.source import open_all, open_source
from ssljax.errors import UserError


@pytest.fixture
def save(tmp_path):
  def write(**arrays):
    np.savez(tmp_path / "set.npz", **arrays)
    return f"npz:{tmp_path}/set.npz"

  return write


@pytest.mark.parametrize("channels", [(), (1,), (3,), (4,)])
@pytest.mark.parametrize("keys", [("image", "label"), ("images", "labels"), ("x", "y")])
def test_pictures_and_labels(save, keys, channels):
  images = np.full((5, 4, 8, *channels), 255, np.uint8) - np.arange(5, dtype=np.uint8).reshape(
    5, *[1] * (2 + len(channels))
  )
  if channels == (4,):
    images[..., 3] = 255
  source = open_all(save(**{keys[0]: images, keys[1]: np.array([2, 0, 1, 0, 2], np.int64)}), image_size=4)
  arrays, errors = source.read(np.array([4, 1]))
  assert not errors and source.num_classes == 3 and source.keys == ("image", "aspect", "label")
  assert arrays["label"].tolist() == [2, 0] and arrays["aspect"].tolist() == [2, 2]
  np.testing.assert_array_equal(
    arrays["image"], np.broadcast_to(np.array([251, 254]).reshape(2, 1, 1, 1), (2, 4, 4, 3))
  )


def test_without_labels(save):
  source = open_all(save(x=np.zeros((5, 4, 4), np.uint8)), image_size=4)
  assert source.num_classes is None and "label" not in source.read(np.arange(2)).arrays


def test_pickling_leaves_the_pictures_in_the_file(save):
  source = open_source(save(x=np.random.default_rng(0).integers(0, 9, (50, 32, 32), dtype=np.uint8)), image_size=32)
  pickled = pickle.dumps(source)
  assert len(pickled) < 5000
  np.testing.assert_array_equal(
    pickle.loads(pickled).read(np.arange(9)).arrays["image"], source.read(np.arange(9)).arrays["image"]
  )


GOOD = np.zeros((5, 4, 4), np.uint8)


@pytest.mark.parametrize(
  ("arrays", "says"),
  [
    ({"pictures": GOOD}, "holds none of the arrays image, images, x"),
    ({"x": GOOD.astype(np.float32)}, r"float32\[5, 4, 4\], expected uint8"),
    ({"x": GOOD[0]}, r"uint8\[4, 4\], expected"),
    ({"x": np.zeros((5, 2, 4, 4), np.uint8)[..., :2]}, r"uint8\[5, 2, 4, 2\], expected"),
    ({"x": GOOD[:, :0]}, r"uint8\[5, 0, 4\], expected"),
    ({"x": GOOD, "y": np.zeros(4, int)}, r"int64\[4\], expected integers\[5\]"),
    ({"x": GOOD, "y": np.zeros(5)}, r"float64\[5\], expected integers\[5\]"),
    ({"x": GOOD, "y": np.array([0, 1, -1, 0, 0])}, "label spans -1 to 1"),
    ({"x": GOOD[:0]}, "holds no records"),
    ({"x": np.array([{}, {}], object)}, "cannot be read: Object arrays cannot be loaded"),
  ],
)
def test_wrong_arrays_are_named(save, arrays, says):
  with pytest.raises(UserError, match=says) as error:
    open_all(save(**arrays), image_size=4)
  assert "\n" not in str(error.value)


def test_wrong_files_are_named(save, tmp_path, monkeypatch):
  (tmp_path / "text.npz").write_text("no archive")
  for name, says in (("none.npz", "found nothing"), (".", "found a directory"), ("text.npz", "cannot be read")):
    with pytest.raises(UserError, match=says):
      open_all(f"npz:{tmp_path}/{name}", image_size=4)
  monkeypatch.setattr(npz, "MAX_BYTES", 50)
  with pytest.raises(UserError, match="bytes, limit 50"):
    open_all(save(x=GOOD), image_size=4)
