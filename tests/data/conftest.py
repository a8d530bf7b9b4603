"""Small real files: pictures that can be told apart after JPEG."""

import io

import numpy as np
import pytest
from PIL import Image


def encode(array, form="PNG", **options):
  """The bytes of a picture."""
  out = io.BytesIO()
  Image.fromarray(array).save(out, form, **options)
  return out.getvalue()


@pytest.fixture
def encoded():
  return encode


@pytest.fixture
def folder(tmp_path):
  """24 JPEG files of two classes in tmp_path/pictures; number i has brightness 10 * i."""
  root = tmp_path / "pictures"
  for i in range(24):
    path = root / ("cat", "dog")[i % 2] / "deeper" / f"{i:02d}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(np.full((12, 16, 3), 10 * i, np.uint8), "JPEG", quality=95))
  return root
