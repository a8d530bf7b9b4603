"""The baseline of a language model: counts of bytes."""

import dataclasses
from typing import ClassVar

import numpy as np

from ssljax.data.documents import Documents
from ssljax.errors import UserError
from ssljax.evaluators.text import TextProbe, When

MAX_ORDER = 2  # the table of order 2 has 16.8 million cells


@dataclasses.dataclass(frozen=True, kw_only=True)
class NGram:
  """Bits per byte of the test documents under a byte n-gram model of the training documents.

      p_k(c | context) = (count(context, c) + T(context) p_{k-1}(c | shorter context)) / (count(context) + T(context))

  T(context) is how many different bytes follow it (Witten-Bell); p_{-1} = 1/256. A document begins with zero bytes.

  Attributes:
    order: bytes of context, 0 to 2.
    max_bytes: how much of either split is read.

  Raises:
    UserError: an order outside 0 to 2.

  Source: Witten, Bell, "The zero-frequency problem", IEEE Transactions on Information Theory, 1991.
  """

  when: ClassVar[When] = "once"
  order: int = 2
  max_bytes: int = 100_000_000

  def __post_init__(self):
    if not 0 <= self.order <= MAX_ORDER:
      raise UserError(f"ngram.NGram: order {self.order}, expected 0 to {MAX_ORDER}")

  def __call__(self, probe: TextProbe) -> dict[str, float]:
    """Returns {"ngram/bits_per_byte": bits}."""
    train, test = (self._bytes(corpus.documents) for corpus in (probe.train, probe.test))
    return {"ngram/bits_per_byte": bits_per_byte(train, test, order=self.order)}

  def _bytes(self, documents: Documents) -> np.ndarray:
    """Returns the documents' bytes uint8[N], `order` zeros before each."""
    parts, size = [], 0
    for row in range(len(documents)):
      parts.append(bytes(self.order) + documents.read(row).encode("utf-8"))
      size += len(parts[-1])
      if size >= self.max_bytes:
        break
    return np.frombuffer(b"".join(parts), np.uint8)


def bits_per_byte(train: np.ndarray, test: np.ndarray, *, order: int) -> float:
  """Returns the mean of -log2 p over the bytes uint8[M] of `test`, but the first `order`, for counts of `train`."""
  probability = np.full(len(test) - order, 1 / 256)
  for k in range(order + 1):
    counts = np.bincount(_contexts(train, k), minlength=256 ** (k + 1)).reshape(-1, 256)
    total, different = counts.sum(axis=1), (counts > 0).sum(axis=1)
    code = _contexts(test, k)[order - k :]
    context = code >> 8
    seen = total[context] > 0
    mixed = (counts.ravel()[code] + different[context] * probability) / np.maximum(total + different, 1)[context]
    probability = np.where(seen, mixed, probability)
  return float(-np.log2(probability).mean())


def _contexts(data: np.ndarray, order: int) -> np.ndarray:
  """Returns int64[N - order]: the last `order` + 1 bytes up to each place as one number."""
  code = np.zeros(len(data) - order, np.int64)
  for back in range(order, -1, -1):
    code = (code << 8) | data[order - back : len(data) - back]
  return code
