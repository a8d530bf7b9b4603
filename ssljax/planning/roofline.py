"""The least time a step can take: its work over what the chip can do, each limit by itself."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from ssljax.chips import Chip
from ssljax.planning.products import Operands

Bound = Literal["compute", "memory", "interconnect"]


class Roofline(NamedTuple):
  """Seconds of a step, were nothing else in its way.

  Attributes:
    compute: products at the chip's peak.
    memory: bytes moved at the bandwidth of the chip's memory.
    interconnect: bytes sent over the links within a slice (or host), then over the network between them.
  """

  compute: float
  memory: float
  interconnect: float

  @property
  def seconds(self) -> float:
    """Returns the longest of the three: a step that overlaps them all perfectly."""
    return max(self)

  @property
  def bound(self) -> Bound:
    """Returns which of the three that is."""
    return max(("compute", "memory", "interconnect"), key=lambda name: getattr(self, name))


def roofline(chip: Chip, *, work: Mapping[Operands, int], moved: int, sent: int, sent_across: int) -> Roofline:
  """Returns the roofline of one device.

      compute = work_bf16 / peak_bf16 + work_f32 / peak_f32     memory = moved / bandwidth
      interconnect = sent / links + sent_across / network

  Args:
    chip: the device.
    work: floating-point operations by operands, each pass counted.
    moved: bytes between memory and chip.
    sent: bytes the device sends within its slice or host.
    sent_across: bytes it sends to others.

  Source: Williams, Waterman, Patterson, "Roofline: an insightful visual performance model for multicore architectures",
    2009, doi 10.1145/1498765.1498785.
  Differs from the reference: a third limit, the interconnect.
  """
  return Roofline(
    compute=work["bfloat16"] / chip.bfloat16 + work["float32"] / chip.float32,
    memory=moved / chip.bandwidth,
    interconnect=sent / chip.links + sent_across / chip.network,
  )
