"""Contact sheets of images for the report."""

import json
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_SMALLEST, _LARGEST = 96, 160  # pixels a side of a cell: small images are enlarged by a whole factor, large ones shrunk
_GAP, _LINE = 4, 18  # pixels between cells; height of a line of text
_NOTE = 240  # pixels that texts beside the rows are wide
_HIT, _MISS, _INK = (22, 140, 70), (205, 50, 50), (90, 96, 102)


def grid(
  images: np.ndarray, *, rows: Sequence[str] = (), columns: Sequence[str] = (), notes: Sequence[str] = ()
) -> Image.Image:
  """Returns a sheet of images[R,C,H,W,3], R rows of C, on white.

  Args:
    images: uint8, or float in [0,1] (clipped); one channel is shown as grey.
    rows: a label left of each row, or none.
    columns: a label above each column, or none.
    notes: a text right of each row, in lines of 240 pixels as far as the row is high, or none.
  """
  cells = [[_cell(image) for image in row] for row in np.asarray(images)]
  side = cells[0][0].size
  left = 10 + max((int(_font().getlength(text)) for text in rows), default=0) if rows else 0
  top = _LINE + 2 if columns else 0
  width, height = (extent + _GAP for extent in side)
  right = left + len(cells[0]) * width - _GAP
  size = (right + (2 * _GAP + _NOTE if notes else 0), top + len(cells) * height - _GAP)
  sheet = Image.new("RGB", size, "white")
  draw = ImageDraw.Draw(sheet)
  for r, row in enumerate(cells):
    for c, cell in enumerate(row):
      sheet.paste(cell, (left + c * width, top + r * height))
  for r, text in enumerate(rows):
    draw.text((left - 10, top + r * height + side[1] // 2), text, _INK, _font(), anchor="rm")
  for r, text in enumerate(notes):
    for n, line in enumerate(_wrapped(text, most=max(1, side[1] // _LINE))):
      draw.text((right + 2 * _GAP, top + r * height + n * _LINE), line, _INK, _font())
  for c, text in enumerate(columns):
    draw.text((left + c * width + side[0] // 2, top - 5), _fitted(text, side[0]), _INK, _font(), anchor="ms")
  return sheet


def neighbours(query_images: np.ndarray, neighbour_images: np.ndarray, same_class: np.ndarray) -> Image.Image:
  """Returns a sheet with each query at the left and its nearest neighbours to the right, nearest first.

  Neighbours of the query's class are framed green, others red with a filled corner.

  Args:
    query_images: [Q,H,W,3], uint8 or float in [0,1].
    neighbour_images: [Q,K,H,W,3].
    same_class: bool[Q,K].
  """
  blank = Image.new("RGB", (_GAP * 3, 1), "white")
  queries = grid(np.asarray(query_images)[:, None], columns=["query"])
  framed = np.stack(
    [
      [_framed(image, hit) for image, hit in zip(*row, strict=True)]
      for row in zip(neighbour_images, same_class, strict=True)
    ]
  )
  answers = grid(framed, columns=[str(k + 1) for k in range(framed.shape[1])])
  sheet = Image.new("RGB", (queries.width + blank.width + answers.width, answers.height), "white")
  sheet.paste(queries, (0, 0))
  sheet.paste(answers, (queries.width + blank.width, 0))
  return sheet


def save(image: Image.Image, directory: pathlib.Path, name: str, *, caption: str) -> pathlib.Path:
  """Writes `directory`/`name`.png and its caption in captions.json; returns the path of the picture."""
  directory = pathlib.Path(directory)
  directory.mkdir(parents=True, exist_ok=True)
  path, captions = directory / f"{name}.png", directory / "captions.json"
  image.save(path, optimize=True)
  known = json.loads(captions.read_text(encoding="utf-8")) if captions.is_file() else {}
  captions.write_text(json.dumps(known | {path.name: caption}, indent=2) + "\n", encoding="utf-8")
  return path


def to_uint8(images: np.ndarray) -> np.ndarray:
  """Returns images as uint8 [...,3]; floats in [0,1] are clipped and rounded, NaN is black, grey is repeated."""
  images = np.asarray(images)
  if images.dtype != np.uint8:
    images = np.rint(255 * np.clip(np.nan_to_num(images.astype(np.float32)), 0, 1)).astype(np.uint8)
  return np.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images[..., :3]


def _cell(image: np.ndarray) -> Image.Image:
  """Returns one image at a size worth looking at."""
  cell = Image.fromarray(to_uint8(image))
  longest = max(cell.size)
  if longest < _SMALLEST:
    factor = -(-_SMALLEST // longest)
    return cell.resize((cell.width * factor, cell.height * factor), Image.Resampling.NEAREST)
  if longest > _LARGEST:
    cell.thumbnail((_LARGEST, _LARGEST), Image.Resampling.LANCZOS)
  return cell


def _framed(image: np.ndarray, hit: bool) -> np.ndarray:
  cell = _cell(image)
  draw = ImageDraw.Draw(cell)
  draw.rectangle((0, 0, cell.width - 1, cell.height - 1), outline=_HIT if hit else _MISS, width=4)
  if not hit:
    draw.polygon([(cell.width - 18, 0), (cell.width, 0), (cell.width, 18)], fill=_MISS)
  return np.asarray(cell)


def _font() -> ImageFont.FreeTypeFont:
  return ImageFont.load_default(size=12)


def _wrapped(text: str, *, most: int) -> list[str]:
  """Returns the text in at most `most` lines; what does not fit any more ends with an ellipsis."""
  lines = [""]
  for word in text.split():
    longer = f"{lines[-1]} {word}".strip()
    if lines[-1] and _font().getlength(longer) > _NOTE:
      lines.append(word)
    else:
      lines[-1] = longer
  if len(lines) > most:
    lines = [*lines[: most - 1], f"{lines[most - 1]} {lines[most]}"]
  return [_fitted(line, _NOTE) for line in lines]


def _fitted(text: str, width: int) -> str:
  """Returns the text, cut with an ellipsis where it is wider than `width` pixels."""
  if _font().getlength(text) <= width:
    return text
  while text and _font().getlength(text + "…") > width:
    text = text[:-1]
  return text + "…"
