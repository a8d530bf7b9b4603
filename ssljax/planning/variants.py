"""The same method with another batch or another choice of what is computed again."""

import inspect
from collections.abc import Mapping
from typing import Any

from ssljax import build
from ssljax.errors import UserError
from ssljax.models.blocks import POLICIES

# From the least work to the least memory: what "full" computes again, the others keep at least in part.
REMATS = ("none", "dots", "attention_out", "full")
assert set(REMATS) == {"none", *POLICIES}


def with_remat(section: Mapping[str, Any], policy: str) -> dict[str, Any]:
  """Returns an objective's section with every model in it that knows `remat` set to a policy."""
  changed = {key: with_remat(value, policy) if isinstance(value, Mapping) else value for key, value in section.items()}
  return changed | ({"remat": policy} if _knows_remat(section) else {})


def plain(section: Mapping[str, Any]) -> dict[str, Any]:
  """Returns an objective's section as the method is written: nothing computed again, all pairs as one matrix."""
  inner = {key: plain(value) if isinstance(value, Mapping) else value for key, value in section.items()}
  return with_remat(inner, "none") | ({"pairs": "dense"} if "pairs" in section else {})


def remat_of(section: Mapping[str, Any]) -> str | None:
  """Returns the policy of the first model that knows `remat`, None where none does."""
  if _knows_remat(section):
    return section.get("remat") or "none"
  inner = [value for value in section.values() if isinstance(value, Mapping)]
  return next((found for found in map(remat_of, inner) if found), None)


def with_rows(config: Mapping[str, Any], rows: int, *, devices: int) -> dict[str, Any]:
  """Returns the config with `rows` examples a device in each microbatch."""
  size = rows * devices * config.get("accumulate", 1)
  return {**config, "data": {**config["data"], "batch_size": size}}


def _knows_remat(section: Mapping[str, Any]) -> bool:
  if not isinstance(section.get("name"), str):
    return False
  try:
    target = build.resolve(section["name"], "models", where="objective")
  except UserError:  # an objective or a schedule
    return False
  return "remat" in inspect.signature(target).parameters
