"""`ssljax data list`: kinds of sources and the real sets that come with packages."""

import argparse

from rich.console import Console
from rich.table import Column, Table

from ssljax.data import embedded, embedded_texts

_KINDS = (
  ("embedded:NAME", "a set of the table above"),
  ("folder:DIR", "pictures in class folders; train/ and test/ below DIR where they exist"),
  ("npz:FILE", "arrays image (uint8) and, if there are labels, label"),
  ("arrayrecord:DIR", "shards written by ssljax data prepare"),
  ("pairs:FILE.jsonl", "pictures with captions: image (a path below FILE's folder) or bytes (base64), caption(s)"),
  ("webdataset:GLOB", ".tar shards of webdataset or img2dataset: NNN.jpg, NNN.txt or NNN.json, NNN.cls"),
  ("text:GLOB", ".txt, .jsonl (field text) or .html, also .gz and .zst; several globs by commas"),
  ("tfds:NAME", 'a prepared TFDS set in ArrayRecord (pip install "ssljax[tfds]")'),
)


def run(options: argparse.Namespace) -> int:
  """Returns the exit code of `ssljax data list`."""
  del options
  table = Table(Column("source", no_wrap=True), "what", "items", "classes", "licence", "installed")
  for line in (*embedded.catalogue(), *embedded_texts.catalogue()):
    classes = "-" if line.classes is None else str(line.classes)
    items = "-" if line.items is None else f"{line.items:,}"
    table.add_row(f"embedded:{line.name}", line.kind, items, classes, line.licence, line.installed)
  Console().print(table)
  for kind, text in _KINDS:
    print(f"{kind:16} {text}")
  return 0
