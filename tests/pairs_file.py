"""Small real pictures with captions, as the lines of a file and as the members of a .tar."""

import base64
import io
import json
import tarfile

import numpy as np
from PIL import Image


def png(number):
  """A grey picture whose brightness is its number."""
  out = io.BytesIO()
  Image.fromarray(np.full((6, 8, 3), number, np.uint8)).save(out, "PNG")
  return out.getvalue()


def write_pairs(folder, lines):
  """Writes folder/pairs.jsonl, a line an object or a text as it is; returns its spec."""
  folder.mkdir(exist_ok=True)
  (folder / "pairs.jsonl").write_text(
    "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
  )
  return f"pairs:{folder}/pairs.jsonl"


def inline(number, **keys):
  """A pair that holds its picture."""
  return {"bytes": base64.b64encode(png(number)).decode(), "caption": f"number {number}"} | keys


def write_tar(path, members, *, form=tarfile.PAX_FORMAT):
  """Writes (name or TarInfo, bytes) as a .tar."""
  with tarfile.open(path, "w", format=form) as tar:
    for name, data in members:
      info = tarfile.TarInfo(name) if isinstance(name, str) else name
      info.size = len(data)
      tar.addfile(info, io.BytesIO(data))
  return path
