"""`ssljax doctor`: what a run would find, on this machine or on all machines of a run."""

import argparse
import collections
import os
import platform
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from ssljax import distributed, roll_call, runtime


def run(options: argparse.Namespace) -> int:
  """Returns the exit code of `ssljax doctor`: 0 where all processes came and run the same versions, else 1."""
  runtime.start(cpu_devices=options.cpu_devices)
  card = {"versions": distributed.versions(), "cores": runtime.cores(), "memory": _memory()}
  try:
    with distributed.joined(
      options.coordinator,
      options.num_processes,
      options.process_id,
      same={},
      card=card,
      join_timeout=options.join_timeout,
      lost_timeout=options.lost_timeout,
    ) as cards:
      return _report(list(cards) or [{"index": 0, "host": socket.gethostname(), **card}])
  except roll_call.Missing as missing:
    Console().print(_table(missing.cards, {}))
    print(f"error: {missing}", file=sys.stderr)
    return 1


def _report(cards: Sequence[Mapping[str, Any]]) -> int:
  import jax

  kinds = collections.defaultdict(list)
  for device in jax.devices():
    kinds[device.process_index].append(device.device_kind)
  devices = {index: f"{len(found)} x {found[0]}" for index, found in kinds.items()}
  if not distributed.is_main():
    return 0
  Console().print(_table(cards, devices))
  mine = cards[0]["versions"]
  print("  ".join(f"{package} {version}" for package, version in mine.items()))
  different = [card for card in cards if card["versions"] != mine]
  for card in different:
    shown = (
      f"{key} {value} instead of {mine.get(key)}" for key, value in card["versions"].items() if value != mine.get(key)
    )
    print(f"process {card['index']} ({card['host']}): {', '.join(shown)}")
  return 1 if different else 0


def _table(cards: Sequence[Mapping[str, Any]], devices: Mapping[int, str]) -> Table:
  table = Table("process", "machine", "devices", "cores", "memory", "clock")
  for card in cards:
    memory = card.get("memory")
    table.add_row(
      str(card["index"]),
      str(card["host"]),
      devices.get(card["index"], "-"),
      str(card.get("cores", "-")),
      f"{memory / 2**30:.0f} GiB" if memory else "-",
      f"{card['clock'] - card['arrived']:+.3f} s" if "arrived" in card else "",
    )
  return table


def _memory() -> int | None:
  """Returns the machine's memory in bytes, None where it does not say."""
  if platform.system() != "Linux":
    return None
  return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
