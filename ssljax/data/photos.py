"""Photo identification: which of 60 photographs does a small crop come from? Real pictures out of three packages.

The left 60 % of each photograph gives the training crops and the right 35 % the test crops; the 5 % between them are
left out, so the two share no pixel. Raw pixels do poorly here and features do well, which makes it a test of features.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ssljax.data.permutation import mix
from ssljax.data.source import Item, Source
from ssljax.errors import UserError

TRAIN_CROPS, TEST_CROPS = 120, 40  # a photograph
SHORT_SIDE = 448  # pixels; larger photographs are reduced to it before they are cropped
MAX_SIDE = 128  # pixels; the right 35 % of the narrowest photograph is 149 wide

_SKIMAGE = """
astronaut.png brick.png camera.png chelsea.png coffee.png coins.png grass.png gravel.png hubble_deep_field.jpg ihc.png
moon.png motorcycle_left.png retina.jpg rocket.jpg
"""
_MVTB = """
58060.png building2-3.png butterfly.jpg castle.png church.png eiffel-1.png image3.jpg lab-scene.png monalisa.png
mosaic/aerial-08.png notre-dame.png road.png rocks2-l.png roof.png street.png
"""
_CAMPUS = (491, *range(493, 502), *range(503, 508), 509, 510, 512, 514, 515)
PHOTOS: Mapping[str, tuple[str, ...]] = {
  "skimage": tuple(f"data/{name}" for name in _SKIMAGE.split()),
  "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
  "mvtbdata": (
    *(f"images/campus/P1070{number}.png" for number in _CAMPUS),
    *(f"images/flowers{number}.png" for number in range(1, 10)),
    *(f"images/{name}" for name in _MVTB.split()),
  ),
}
"""Package -> its photographs; one only of stereo pairs, of overlapping series and of church.jpg / church.png."""


class PhotoSource(Source):
  """Square crops of `side` pixels; the place of a crop is a function of its row alone, and each photograph is decoded
  once, when first asked for.

  Raises:
    UserError: a side outside 8..128 pixels, or a package without one of its photographs.
  """

  lazy = ("_photos",)
  licence = "scikit-image: mixed, free; scikit-learn: CC BY 2.0; mvtb-data: MIT"

  def __init__(self, folders: Mapping[str, Path], *, side: int, image_size: int):
    if not 8 <= side <= MAX_SIDE:
      raise UserError(f"data source: embedded:photos-{side}: expected a side of 8 to {MAX_SIDE} pixels")
    self.files = [folders[package] / name for package, names in PHOTOS.items() for name in names]
    missing = [str(file) for file in self.files if not file.is_file()]
    if missing:
      raise UserError(f"data source: embedded:photos: {len(missing)} photographs are missing, first {missing[0]}")
    self.side, self.image_size = side, image_size
    self.class_names = tuple(file.stem for file in self.files)
    self.num_classes = len(self.files)
    train = TRAIN_CROPS * len(self.files)
    self.own_splits = {"train": range(train), "test": range(train, len(self))}

  def __len__(self) -> int:
    return (TRAIN_CROPS + TEST_CROPS) * len(self.files)

  def fetch(self, rows: np.ndarray) -> tuple[Sequence[Item], np.ndarray | None]:
    """Returns uint8[side,side,3] crops and the numbers of their photographs."""
    labels, test = self.labels(rows), rows >= len(self.own_splits["train"])
    chance = np.stack([mix(rows * 2 + axis + 1) for axis in (0, 1)]) / 2.0**64
    crops = [self._crop(*place) for place in zip(labels.tolist(), test.tolist(), *chance.tolist(), strict=True)]
    return crops, labels

  def labels(self, rows: np.ndarray) -> np.ndarray:
    """Returns int32[n], the photographs of rows int64[n]."""
    train = len(self.own_splits["train"])
    return np.where(rows < train, rows // TRAIN_CROPS, (rows - train) // TEST_CROPS).astype(np.int32)

  def name(self, row: int) -> str:
    """Returns FILE[row]."""
    return f"{self.files[self.labels(np.array(row))]}[{row}]"

  def _crop(self, label: int, test: bool, down: float, across: float) -> np.ndarray:
    photo = self._photo(label)
    height, width = photo.shape[:2]
    left, right = (width - int(0.35 * width), width) if test else (0, int(0.6 * width))
    y = int(down * (height - self.side + 1))
    x = left + int(across * (right - left - self.side + 1))
    return photo[y : y + self.side, x : x + self.side]

  def _photo(self, label: int) -> np.ndarray:
    photos = self.__dict__.setdefault("_photos", {})
    if label not in photos:
      with Image.open(self.files[label]) as image:
        scale = min(1.0, SHORT_SIDE / min(image.size))
        size = tuple(round(edge * scale) for edge in image.size)
        photos[label] = np.asarray(image.convert("RGB").resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0))
    return photos[label]
