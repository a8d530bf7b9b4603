"""Encoded image bytes to a square uint8 canvas, with limits: outside data is hostile."""

import io
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

MAX_BYTES = 64 * 2**20
MAX_PIXELS = 2**26
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")


class Picture(NamedTuple):
  """A decoded picture: `canvas` uint8[S,S,3] (stretched to the square) and the original size in pixels."""

  canvas: np.ndarray
  width: int
  height: int


class CorruptRecord(Exception):
  """A record that cannot be decoded; the message is the reason. It costs the batch nothing but this record."""


def decode(data: bytes, *, size: int) -> Picture:
  """Returns the picture in `data`, stretched to `size` x `size` pixels with antialiasing; aspect = width / height.

  JPEG goes through simplejpeg, which scales inside the DCT to the least size that still covers the canvas; the rest
  goes through Pillow. Grey becomes RGB, alpha is laid over white, 16-bit grey keeps its upper 8 bits, an animation
  gives its first frame. The EXIF orientation is not applied (as in torchvision's ImageFolder).

  Raises:
    CorruptRecord: the bytes are no picture, are cut short, or exceed 64 MiB or 2^26 pixels.
  """
  if len(data) > MAX_BYTES:
    raise CorruptRecord(f"{len(data)} bytes, limit {MAX_BYTES}")
  try:
    if data[:2] == b"\xff\xd8":
      return _decode_jpeg(data, size)
    return _decode_any(data, size)
  except CorruptRecord:
    raise
  except UnidentifiedImageError:
    raise CorruptRecord("not a picture of a known format") from None
  except (
    Exception
  ) as error:  # decoders fail on hostile bytes with a dozen unrelated types (struct.error, SyntaxError...)
    raise CorruptRecord(str(error).splitlines()[0][:200] if str(error) else type(error).__name__) from None


def canvas(array: np.ndarray, *, size: int) -> Picture:
  """Returns the picture in uint8[H,W] or uint8[H,W,C] (C = 1, 3 or 4, alpha over white), stretched to the square."""
  height, width = array.shape[:2]
  if array.ndim == 3 and array.shape[2] == 3:
    if height == width == size:
      return Picture(array, width, height)
    image = Image.fromarray(np.ascontiguousarray(array))
  else:
    image = Image.fromarray(np.ascontiguousarray(array.squeeze(2) if array.shape[2:] == (1,) else array))
  return Picture(_stretch(_rgb(image), size), width, height)


def encode_png(array: np.ndarray) -> bytes:
  """Returns uint8[H,W], uint8[H,W,1], uint8[H,W,3] or uint8[H,W,4] as PNG bytes, without loss."""
  out = io.BytesIO()
  Image.fromarray(np.ascontiguousarray(array.squeeze(2) if array.shape[2:] == (1,) else array)).save(out, "PNG")
  return out.getvalue()


def _check_pixels(width: int, height: int) -> None:
  if width * height > MAX_PIXELS:
    raise CorruptRecord(f"{width} x {height} pixels, limit {MAX_PIXELS}")


def _decode_jpeg(data: bytes, size: int) -> Picture:
  height, width, space, _ = simplejpeg.decode_jpeg_header(data)
  _check_pixels(width, height)
  if space in ("CMYK", "YCCK"):
    return _decode_any(data, size)
  pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=size, min_width=size)
  if pixels.shape[:2] == (size, size):
    return Picture(pixels, width, height)
  return Picture(_stretch(Image.fromarray(pixels), size), width, height)


def _decode_any(data: bytes, size: int) -> Picture:
  with Image.open(io.BytesIO(data), formats=FORMATS) as image:
    _check_pixels(*image.size)
    return Picture(_stretch(_rgb(image), size), *image.size)


def _rgb(image: Image.Image) -> Image.Image:
  if image.mode.startswith("I"):
    grey = np.clip(np.asarray(image).astype(np.int64), 0, 65535) >> 8
    return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
  if image.mode == "F":
    raise CorruptRecord("floating-point pixels, expected 8 or 16 bits")
  if "A" in image.mode or "transparency" in image.info:
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
  return image.convert("RGB")


def _stretch(image: Image.Image, size: int) -> np.ndarray:
  if image.size != (size, size):
    image = image.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=3.0)
  return np.asarray(image)
