"""Packing examples of different sizes into rows of one size, with little padding and nothing cut or lost."""

import numpy as np

WINDOW = 512  # examples that are packed together


def pack(sizes: np.ndarray, *, capacity: tuple[int, ...], window: int = WINDOW) -> np.ndarray:
  """Returns the row of each example, int64[N], rows counted from 0 without gaps.

  Examples are packed in windows of consecutive ones; all windows advance together, a step at a time. With one side,
  the largest example not yet placed goes where it leaves the least room. With two (inputs and targets), rows are
  filled one after the other, each time with the example whose sizes lie most along what is still free:

      argmax_i sum_k size_ik free_k^2        sizes and room as shares of the row

  Args:
    sizes: int64[N,K], tokens on each of the row's K sides, at most the capacity.
    capacity: tokens a row has, for each side.
    window: examples a window; more fill rows better and cost more time, linearly.

  Source: Panigrahy, Talwar, Uyeda, Wieder, "Heuristics for Vector Bin Packing", 2011 (dot-product greedy; the
    square is ours: 0.2 to 1 % less padding on mixtures of denoisers).
  """
  count, sides = sizes.shape
  if not count:
    return np.zeros(0, np.int64)
  window = min(window, count)
  windows = -(-count // window)
  padded = np.zeros((windows * window, sides), np.int32)  # what fills up the last window has no size
  padded[:count] = sizes
  padded = padded.reshape(windows, window, sides)
  rows = _best_fit(padded[..., 0], capacity[0]) if sides == 1 else _fill(padded, capacity)
  used = np.zeros((windows, window), bool)
  used[np.repeat(np.arange(windows), window)[:count], rows.ravel()[:count]] = True
  number = (np.cumsum(used) - 1).reshape(used.shape)
  return np.take_along_axis(number, rows, axis=1).ravel()[:count]


def _best_fit(sizes: np.ndarray, capacity: int) -> np.ndarray:
  """Returns the row int64[W,N] in its window of each example, for sizes int32[W,N]: largest first, tightest row."""
  windows, count = sizes.shape
  order = np.argsort(-sizes, axis=1, kind="stable")
  left, rows = np.full((windows, count), capacity, np.int32), np.zeros((windows, count), np.int64)
  opened, every = 1, np.arange(windows)
  for item in order.T:
    size = sizes[every, item]
    room = left[:, :opened] - size[:, None]
    row = np.argmin(np.where(room >= 0, room, capacity + 1), axis=1)
    rows[every, item] = row
    left[every, row] -= size
    opened = min(max(opened, int(row.max()) + 2), count)  # one empty row more than is used
  return rows


def _fill(sizes: np.ndarray, capacity: tuple[int, ...]) -> np.ndarray:
  """Returns the row int64[W,N] in its window of each example, for sizes int32[W,N,K]: one row after the other."""
  windows, count, sides = sizes.shape
  left = [sizes[..., side].copy() for side in range(sides)]  # placed examples become too large for any row
  share = [(sizes[..., side] / most).astype(np.float32) for side, most in enumerate(capacity)]
  room, current = np.tile(np.array(capacity, np.int32), (windows, 1)), np.zeros(windows, np.int64)
  rows, todo = np.zeros((windows, count), np.int64), np.full(windows, count)
  while todo.any():
    free = np.square(room / np.array(capacity)).astype(np.float32)
    fits, gain = left[0] <= room[:, :1], share[0] * free[:, :1]
    for side in range(1, sides):
      fits &= left[side] <= room[:, side, None]
      gain += share[side] * free[:, side, None]
    best = np.argmax(np.where(fits, gain, np.float32(-1)), axis=1)
    found = np.flatnonzero(fits[np.arange(windows), best])
    rows[found, best[found]] = current[found]
    room[found] -= sizes[found, best[found]]
    for side in range(sides):
      left[side][found, best[found]] = np.iinfo(np.int32).max
    todo[found] -= 1
    full = np.setdiff1d(np.arange(windows), found)
    current[full], room[full] = current[full] + 1, capacity
  return rows
