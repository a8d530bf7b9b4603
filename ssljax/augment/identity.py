"""No augmentation: what data without pictures gets."""

import dataclasses

from ssljax.types import Array, Batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Identity:
  """Returns batches as they are."""

  @property
  def produces(self) -> tuple[str, ...]:
    """Returns the leaves this adds to a batch: none."""
    return ()

  def __call__(self, keys: Array, batch: Batch) -> Batch:
    """Returns the batch."""
    del keys
    return batch

  def evaluate(self, batch: Batch) -> Batch:
    """Returns the batch."""
    return batch
