"""What accelerators can do, by their makers' data sheets: one table, for MFU and for plans.

A row is one jax device. A chip of tpu7x is two of them, each with half of its figures.

Sources, TPUs: https://docs.cloud.google.com/tpu/docs/ and v4, v5e, v6e or tpu7x, the last for v5p as well: compute
and HBM of a chip; its links one way, half of what is called bidirectional; network: 50, 100 and 100 Gb/s a chip of
v5p, v6e and tpu7x; of v5e two cards of 100 Gb/s for the eight chips of a host. (For the HBM of v5e one version of the
page has 819 GB/s, another 800 GiB/s.) Of v4 those pages do not give the links: six of 50 GB/s (Jouppi et al., "TPU
v4", arXiv 2304.01433, table 4; read in quotations), nor the network: 25 GB/s for a host, of four chips, is what
https://jax-ml.github.io/scaling-book/tpus calls typical. The memory of a TPU is what its compiler says a program may
use (libtpu 0.0.42, asked with programs too large).

Sources, GPUs: NVIDIA's data sheets of A100, H100 and H200 (dense, without sparsity; NVLink) and user guides of DGX A100
and H100 (a port of 200 or 400 Gb/s for each GPU).
"""

import dataclasses

_GiB = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
  """One device.

  Attributes:
    bfloat16: FLOP/s of products of bfloat16 operands, summed in float32.
    float32: FLOP/s of products of float32 operands at jax's default precision, which rounds them: on a TPU to
      bfloat16, in one pass; on a GPU to TF32.
    memory: bytes a program may use.
    bandwidth: bytes/s between memory and chip.
    links: bytes/s the device sends over all its links to others of its slice (TPU) or host (GPU), one way.
    network: bytes/s the device sends to other slices or hosts: its share of the host's network cards.
  """

  bfloat16: float
  float32: float
  memory: int
  bandwidth: float
  links: float
  network: float


def _tpu(*, bfloat16: float, memory: float, bandwidth: float, links: float, network: float) -> Chip:
  return Chip(
    bfloat16=bfloat16,
    float32=bfloat16,
    memory=int(memory * _GiB),
    bandwidth=bandwidth,
    links=links,
    network=network,
  )


def _gpu(*, bfloat16: float, memory: float, bandwidth: float, links: float, network: float) -> Chip:
  return Chip(
    bfloat16=bfloat16,
    float32=bfloat16 / 2,
    memory=int(0.75 * memory * _GiB),  # what jax takes unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise
    bandwidth=bandwidth,
    links=links,
    network=network,
  )


_V5E = _tpu(bfloat16=197e12, memory=15.75, bandwidth=819e9, links=200e9, network=3.125e9)

# By the start of jax's device_kind; the longest that fits counts.
CHIPS = {
  "TPU v4": _tpu(bfloat16=275e12, memory=30.75, bandwidth=1200e9, links=300e9, network=6.25e9),
  "TPU v5 lite": _V5E,
  "TPU v5e": _V5E,
  "TPU v5": _tpu(bfloat16=459e12, memory=95.74, bandwidth=2765e9, links=600e9, network=6.25e9),
  "TPU v6": _tpu(bfloat16=918e12, memory=31.25, bandwidth=1638e9, links=400e9, network=12.5e9),
  "TPU7x": _tpu(bfloat16=1153.5e12, memory=94.75, bandwidth=3690e9, links=300e9, network=6.25e9),
  "NVIDIA A100-SXM4-40GB": _gpu(bfloat16=312e12, memory=39.4, bandwidth=1555e9, links=300e9, network=25e9),
  "NVIDIA A100": _gpu(bfloat16=312e12, memory=79.2, bandwidth=2039e9, links=300e9, network=25e9),
  "NVIDIA H100": _gpu(bfloat16=989e12, memory=79.1, bandwidth=3350e9, links=450e9, network=50e9),
  "NVIDIA H200": _gpu(bfloat16=989e12, memory=139.8, bandwidth=4800e9, links=450e9, network=50e9),
}


def find(device_kind: str) -> Chip | None:
  """Returns the chip that jax calls `device_kind`, None where it is not in the table (CPUs)."""
  matches = [kind for kind in CHIPS if device_kind.startswith(kind)]
  return CHIPS[max(matches, key=len)] if matches else None
