"""Imports point down only, and siblings on a floor are blind to each other: read off the source, nothing is run."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1] / "ssljax"
FLOORS = {
  1: ("models", "losses", "augment", "data"),
  2: ("objectives", "evaluators"),
  3: ("training", "export", "planning", "report"),
  4: ("commands", "cli", "__main__"),
}
FLOOR = {name: floor for floor, names in FLOORS.items() for name in names}
# What else a part of floor 2 may not reach for, and libraries with one home.
USES = {"objectives": {"models", "losses"}, "evaluators": {"data"}}
HOMES = {
  "orbax": ("checkpoint.py",),
  "ml_collections": ("commands/configs.py",),
  "torch": ("export/",),
  "tensorflow": (),
}
FILES = sorted(ROOT.rglob("*.py"))


def part(path):
  """The folder or file of ssljax a module belongs to: "models", "tree", "cli"."""
  return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path):
  """Dotted names of everything a file imports, also inside functions."""
  for node in ast.walk(ast.parse(path.read_text("utf-8"))):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      yield from (f"{node.module}.{alias.name}" for alias in node.names)


def forbidden(importer, imported):
  """Whether part `importer` may not import part `imported`."""
  if importer == imported or imported == "__version__":
    return False
  above, below = FLOOR.get(importer, 0), FLOOR.get(imported, 0)
  if above == 0 or below == 0 or above == 4:
    return below > above
  if importer in USES and below == 1:
    return imported not in USES[importer]
  return below >= above


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_point_down(path):
  names = [name.split(".") for name in imports(path) if name.startswith("ssljax.")]
  wrong = [".".join(name) for name in names if forbidden(part(path), name[1])]
  assert not wrong, f"{part(path)} imports {wrong}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_libraries_have_one_home(path):
  place = str(path.relative_to(ROOT))
  for library, homes in HOMES.items():
    if any(name.split(".")[0] == library for name in imports(path)):
      assert place.startswith(homes), f"{place} imports {library}"


def test_data_is_the_host():
  for path in (ROOT / "data").rglob("*.py"):
    roots = {name.split(".")[0] for name in imports(path)}
    own = {name for name in imports(path) if name.startswith("ssljax.") and not name.startswith("ssljax.data")}
    assert not roots & {"jax", "flax"} and {name.split(".")[1] for name in own} <= {"errors", "durations"}, path


def test_the_rule_itself():
  assert forbidden("models", "data") and forbidden("tree", "models") and forbidden("training", "report")
  assert forbidden("objectives", "augment") and forbidden("evaluators", "models") and forbidden("report", "cli")
  assert not forbidden("objectives", "losses") and not forbidden("commands", "training")


def test_objectives_are_unknown_to_the_trainer():
  names = {path.stem for path in (ROOT / "objectives").glob("*.py")} - {"__init__"}
  for path in (ROOT / "training").glob("*.py"):
    constants = {node.value for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Constant)}
    assert not {str(value) for value in constants} & names, path
