import io

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ssljax.data import decode as module
from ssljax.data.decode import CorruptRecord, canvas, decode, encode_png


def gradient(height, width):
  """A smooth colour picture."""
  y, x = np.mgrid[:height, :width]
  return np.stack([y * 255 // height, x * 255 // width, (y + x) * 255 // (height + width)], -1).astype(np.uint8)


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM", "WEBP", "JPEG"])
def test_each_format_gives_the_picture_stretched(encoded, form):
  array = gradient(40, 60)
  options = {"lossless": True} if form == "WEBP" else {"quality": 98} if form == "JPEG" else {}
  picture = decode(encoded(array, form, **options), size=20)
  assert (picture.width, picture.height) == (60, 40)
  assert picture.canvas.shape == (20, 20, 3) and picture.canvas.dtype == np.uint8
  means = array.reshape(20, 2, 20, 3, 3).mean((1, 3))
  np.testing.assert_allclose(picture.canvas[1:-1, 1:-1], means[1:-1, 1:-1], atol=4)


def test_a_lossless_picture_of_the_right_size_keeps_its_pixels(encoded):
  array = gradient(16, 16)
  np.testing.assert_array_equal(decode(encoded(array), size=16).canvas, array)
  np.testing.assert_array_equal(decode(encode_png(array), size=16).canvas, array)


def test_a_checkerboard_averages_to_grey_and_does_not_alias(encoded):
  board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
  for data in (encoded(board), encoded(board, "JPEG", quality=100)):
    assert abs(decode(data, size=8).canvas.astype(int) - 128).max() <= 3


def test_grey_palette_16_bits_and_cmyk_become_rgb(encoded):
  grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
  rgb = np.repeat(grey[..., None], 3, -1)
  deep = grey.astype(np.uint16) * 256 + 17
  palette = io.BytesIO()
  Image.fromarray(grey).convert("P").save(palette, "PNG")
  for data in (encoded(grey), encoded(deep), palette.getvalue()):
    np.testing.assert_array_equal(decode(data, size=8).canvas, rgb)
  cmyk = io.BytesIO()
  Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(cmyk, "JPEG")
  np.testing.assert_allclose(decode(cmyk.getvalue(), size=8).canvas[4, 4], [255, 0, 0], atol=12)


def test_alpha_lies_over_white(encoded):
  array = np.zeros((4, 4, 4), np.uint8)
  array[:, 2:, 3] = 255
  for picture in (decode(encoded(array), size=4), canvas(array, size=4)):
    assert (picture.canvas[:, :2] == 255).all() and (picture.canvas[:, 2:] == 0).all()


@pytest.mark.parametrize("shape", [(6, 6), (6, 6, 1), (6, 6, 3)])
def test_canvas_of_an_array(shape):
  picture = canvas(np.full(shape, 7, np.uint8), size=3)
  np.testing.assert_array_equal(picture.canvas, np.full((3, 3, 3), 7))
  assert (picture.width, picture.height) == (6, 6)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5])
def test_a_file_cut_short_is_corrupt(encoded, form, share):
  noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
  data = encoded(noise, form)
  with pytest.raises(CorruptRecord, match=r".+") as error:
    decode(data[: int(len(data) * share)], size=8)
  assert "\n" not in str(error.value)


def test_no_picture_is_corrupt():
  for data in (b"", b"hello", b"\xff\xd8\xff", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"):
    with pytest.raises(CorruptRecord):
      decode(data, size=8)


def test_rare_formats_are_refused(encoded):
  with pytest.raises(CorruptRecord, match="known format"):
    decode(encoded(np.zeros((4, 4, 3), np.uint8), "TGA"), size=8)


def test_bombs_are_refused_before_they_are_unpacked(encoded, monkeypatch):
  array = np.zeros((50, 50, 3), np.uint8)
  monkeypatch.setattr(module, "MAX_PIXELS", 2499)
  for form in ("PNG", "JPEG"):
    with pytest.raises(CorruptRecord, match="50 x 50 pixels, limit 2499"):
      decode(encoded(array, form), size=8)
  monkeypatch.setattr(module, "MAX_BYTES", 10)
  with pytest.raises(CorruptRecord, match="bytes, limit 10"):
    decode(encoded(array), size=8)


def test_a_png_that_claims_a_giant_size_is_corrupt(encoded):
  data = bytearray(encoded(np.zeros((4, 4), np.uint8)))
  data[16:24] = (2**17).to_bytes(4, "big") * 2
  with pytest.raises(CorruptRecord):
    decode(bytes(data), size=8)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
@given(data=st.data())
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_damaged_bytes_give_a_picture_or_a_reason(encoded, form, data):
  original = bytearray(encoded(gradient(9, 9), form))
  for _ in range(data.draw(st.integers(1, 8))):
    original[data.draw(st.integers(0, len(original) - 1))] = data.draw(st.integers(0, 255))
  try:
    assert decode(bytes(original), size=4).canvas.shape == (4, 4, 3)
  except CorruptRecord as error:
    assert str(error)
