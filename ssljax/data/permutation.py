"""A seeded permutation of n records that is computed index by index, with no table: 10^8 records cost nothing."""

import numpy as np

ROUNDS = 4
TABLE_SIZE = 1024


def mix(x: np.ndarray) -> np.ndarray:
  """Returns 64 well-mixed bits for each of uint64[n]: the SplitMix64 finaliser, a bijection of 64-bit words.

  Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
  """
  x = np.asarray(x, np.uint64)
  x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
  x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
  return x ^ (x >> np.uint64(31))


def words(*key: int, count: int) -> np.ndarray:
  """Returns uint64[count] pseudo-random words, a pure function of the integers in `key`."""
  state = np.zeros(1, np.uint64)
  for part in key:
    state = mix(state + np.uint64(part & 0xFFFF_FFFF_FFFF_FFFF) + np.uint64(0x9E3779B97F4A7C15))
  return mix(state + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))


def permute(index: np.ndarray, *, size: int, key: tuple[int, ...]) -> np.ndarray:
  """Returns where each `index` int64[n] in [0, size) lands: int64[n], a bijection of [0, size) chosen by `key`.

  Up to 1,024 records: the order of as many random words. Above: an alternating Feistel network on the least number of
  bits that holds `size`, walked again while the result falls outside [0, size) (cycle walking, fewer than 2 walks on
  average), so the cost does not depend on `size`.

  Source: Black, Rogaway, "Ciphers with arbitrary finite domains", 2002.
  """
  index = np.asarray(index, np.int64)
  if size <= TABLE_SIZE:
    return np.argsort(words(*key, count=size), kind="stable")[index]
  bits = (size - 1).bit_length()
  right_bits = np.uint64(bits - bits // 2)
  right_mask = (np.uint64(1) << right_bits) - np.uint64(1)
  left_shift, right_shift = np.uint64(64 - bits // 2), np.uint64(64) - right_bits
  rounds = words(*key, count=4 * ROUNDS).reshape(ROUNDS, 4) | np.array([0, 1, 0, 1], np.uint64)

  def encrypt(x: np.ndarray) -> np.ndarray:
    left, right = x >> right_bits, x & right_mask
    for add_left, times_left, add_right, times_right in rounds:
      left = left ^ (((right + add_left) * times_left) >> left_shift)
      right = right ^ (((left + add_right) * times_right) >> right_shift)
    return (left << right_bits) | right

  out = encrypt(index.astype(np.uint64))
  while (outside := out >= np.uint64(size)).any():
    out[outside] = encrypt(out[outside])
  return out.astype(np.int64)


def shuffled(positions: np.ndarray, *, size: int, seed: int) -> np.ndarray:
  """Returns the records int64[n] at positions int64[n] of an endless stream of `size` records, shuffled each epoch."""
  epochs, index = np.divmod(positions, size)
  rows = np.empty_like(index)
  for epoch in np.unique(epochs):
    inside = epochs == epoch
    rows[inside] = permute(index[inside], size=size, key=(seed, int(epoch)))
  return rows
