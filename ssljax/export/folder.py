"""The folder an export leaves: written aside, loaded by the other library, compared, and only then given its name."""

import json
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import jinja2
import numpy as np

from ssljax.errors import UserError
from ssljax.export import weights
from ssljax.export.gate import TOLERANCE, Comparison, compare
from ssljax.export.peer import Modules, Peer, Preprocessing
from ssljax.export.table import to_theirs


class Refused(UserError):
  """The other library computes other numbers, so nothing was written."""


def check_free(out: pathlib.Path) -> None:
  """Checks that an export may be written here.

  Raises:
    UserError: there is something already.
  """
  if out.exists() and (not out.is_dir() or any(out.iterdir())):
    raise UserError(f"--out: {out} is there already, expected a new folder")
  if not out.parent.is_dir():
    raise UserError(f"--out: no folder {out.parent}")


def write(
  out: pathlib.Path,
  peer: Peer,
  modules: Modules,
  arrays: Mapping[str, np.ndarray],
  inputs: Mapping[str, np.ndarray],
  *,
  preprocessing: Preprocessing | None,
  facts: Mapping[str, Any],
  beside: Callable[[pathlib.Path], Mapping[str, Any]] | None = None,
) -> Comparison:
  """Returns what the gate saw, after the folder was written.

  Args:
    out: the folder.
    peer: what to write.
    modules: our networks by name.
    arrays: their variables by path; those of networks the peer does not take stay behind.
    inputs: real inputs for the gate.
    preprocessing: what pictures go through.
    facts: what the card tells: see card.md.
    beside: writes more files into a folder that has its config, and returns more facts.

  Raises:
    Refused: the outputs differ; `OUT.refused.json` says where.
  """
  aside = out.with_name(f".{out.name}.partial")
  shutil.rmtree(aside, ignore_errors=True)  # of an export that was killed
  aside.mkdir()
  try:
    taken = {name: array for name, array in arrays.items() if peer.holds(name)}
    theirs = to_theirs(peer.table(modules, taken), taken) | peer.constants(modules)
    weights.write(aside / peer.weights_name, theirs)
    for name, text in peer.programs().items():
      (aside / name).write_text(text, encoding="utf-8")
    for name, content in peer.files(modules, preprocessing).items():
      (aside / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    facts = {**facts, **(beside(aside) if beside else {})}
    seen = compare(peer, peer.load(str(aside), modules), modules, arrays, inputs)
    if not seen.passes:
      raise _refused(out, peer, seen)
    _write_card(aside, out, peer, modules, seen, preprocessing, facts)
    if out.is_dir():
      out.rmdir()
    aside.rename(out)
  finally:
    shutil.rmtree(aside, ignore_errors=True)
  return seen


def _refused(out: pathlib.Path, peer: Peer, seen: Comparison) -> Refused:
  """Returns the error, after its report was written beside the folder that is not."""
  report = out.with_name(f"{out.name}.refused.json")
  content = {"class": peer.name, "tolerance": TOLERANCE, **seen._asdict()}
  report.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
  where = f"; the first layer that differs is {seen.layer} (by {seen.layer_difference:.2g})" if seen.layer else ""
  worst = max(seen.differences, key=seen.differences.__getitem__)
  return Refused(
    f"--format={peer.format}: {peer.name} gives other numbers: {worst} differs by {seen.largest:.2g}, at most "
    f"{TOLERANCE:g} is allowed{where}; nothing was written but {report}"
  )


def _write_card(
  folder: pathlib.Path,
  out: pathlib.Path,
  peer: Peer,
  modules: Modules,
  seen: Comparison,
  preprocessing: Preprocessing | None,
  facts: Mapping[str, Any],
) -> None:
  """Writes README.md: how to load the folder, what went in, what was trained and measured."""
  template = jinja2.Template(pathlib.Path(__file__).with_name("card.md").read_text("utf-8"), trim_blocks=True)
  text = template.render(
    name=out.name,
    peer=peer,
    usage=peer.usage(modules).replace("FOLDER", out.name),
    preprocessing=preprocessing,
    differences=seen.differences,
    **facts,
  )
  (folder / "README.md").write_text(text.rstrip() + "\n", encoding="utf-8")
