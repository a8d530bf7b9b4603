"""The largest batch and the cheapest recomputation that fit, found by compiling."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ssljax.planning.estimate import Estimate

MOST_ROWS = 2**14  # examples a device: more fits only what needs no accelerator


class Fit(NamedTuple):
  """What fits with one choice of what is computed again.

  Attributes:
    remat: that choice.
    rows: the largest number of examples a device that fits, 0 where not even one does; found by doubling and halving
      the number the search began with.
    estimate: of that number; of one example where none fits.
  """

  remat: str
  rows: int
  estimate: Estimate

  @property
  def rate(self) -> float:
    """Returns examples a second and device at the roofline, 0 where nothing fits or the chip is not known."""
    known = self.rows and self.estimate.roofline
    return self.rows / self.estimate.roofline.seconds if known and self.estimate.roofline else 0.0


def search(estimate: Callable[[str, int], Estimate], remats: Sequence[str], *, rows: int) -> list[Fit]:
  """Returns the largest batch that fits for each choice of remat.

  Args:
    estimate: (remat, examples a device) -> the estimate.
    remats: the choices, from the most memory to the least: each begins with twice what fitted the one before it, for
      an answer may take minutes.
    rows: examples a device where the search begins.
  """
  found: list[Fit] = []
  for remat in remats:
    found.append(_largest(lambda n, remat=remat: estimate(remat, n), remat, rows))
    rows = max(1, found[-1].rows)
    rows *= 2 if found[-1].rows and rows * 2 <= MOST_ROWS else 1
  return found


def _largest(estimate: Callable[[int], Estimate], remat: str, rows: int) -> Fit:
  found = estimate(rows)
  while not found.fits and rows > 1:
    rows //= 2
    found = estimate(rows)
    if found.fits:
      return Fit(remat, rows, found)
  if not found.fits:
    return Fit(remat, 0, found)
  while rows * 2 <= MOST_ROWS and (larger := estimate(rows * 2)).fits:
    rows, found = rows * 2, larger
  return Fit(remat, rows, found)


def best(fits: Sequence[Fit]) -> Fit | None:
  """Returns the fit of the most examples a second, the cheapest recomputation among equals; None if nothing fits."""
  possible = [fit for fit in fits if fit.rows]
  return max(possible, key=lambda fit: (fit.rate, fit.rows)) if possible else None
