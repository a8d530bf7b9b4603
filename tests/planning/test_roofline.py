"""Seconds of a step from round numbers."""

import pytest

from ssljax.chips import CHIPS, Chip, find
from ssljax.planning.roofline import roofline

CHIP = Chip(bfloat16=100.0, float32=50.0, memory=1000, bandwidth=20.0, links=10.0, network=2.0)


def line(**changes):
  given = {"work": {"bfloat16": 0, "float32": 0}, "moved": 0, "sent": 0, "sent_across": 0}
  return roofline(CHIP, **(given | changes))


def test_limits():
  assert line(work={"bfloat16": 200, "float32": 150}).compute == 2 + 3
  assert line(moved=60).memory == 3
  assert line(sent=40, sent_across=6).interconnect == 4 + 3


@pytest.mark.parametrize(
  ("bound", "changes"),
  [("compute", {"work": {"bfloat16": 900, "float32": 0}}), ("memory", {"moved": 180}), ("interconnect", {"sent": 90})],
)
def test_the_slowest_is_the_bound(bound, changes):
  found = line(**({"work": {"bfloat16": 1, "float32": 1}, "moved": 1, "sent": 1} | changes))
  assert found.bound == bound and found.seconds == 9


def test_the_longest_name_that_fits_is_the_chip():
  assert find("TPU v5 lite") is CHIPS["TPU v5 lite"] and find("TPU v5p") is CHIPS["TPU v5"]
  assert find("NVIDIA A100-SXM4-40GB") is not find("NVIDIA A100-SXM4-80GB")
  assert find("cpu") is None


def test_a_table_without_slips_of_a_thousand():
  for name, chip in CHIPS.items():
    assert 1e14 < chip.bfloat16 < 3e15 and chip.bfloat16 / 2 <= chip.float32 <= chip.bfloat16, name
    assert 10 * 2**30 < chip.memory < 2**38 and 5e11 < chip.bandwidth < 1e13, name
    assert 1e11 < chip.links < chip.bandwidth and 1e9 < chip.network < chip.links / 2, name
