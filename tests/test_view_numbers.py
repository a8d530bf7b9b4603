"""How two views relate: by points of their pictures, exact cases, and the way back."""

import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.view_numbers import BOX, COLOR, NAMES, relative


def drawn(count=50, seed=0):
  """Numbers of views: boxes in the picture, half of them mirrored, and colours."""
  rng = np.random.default_rng(seed)
  side, place = rng.uniform(0.3, 1, (count, 2)), rng.uniform(size=(count, 2))
  corner = place * (1 - side)
  mirrored = rng.uniform(size=count) < 0.5
  left = np.where(mirrored, corner[:, 0] + side[:, 0], corner[:, 0])
  width = np.where(mirrored, -side[:, 0], side[:, 0])
  colors = rng.normal(size=(count, len(COLOR)))
  return np.column_stack([left, corner[:, 1], width, side[:, 1], colors])


def test_a_point_of_the_second_view_is_found_in_the_first():
  first, second = drawn(seed=1), drawn(seed=2)
  found = np.asarray(relative(jnp.asarray(first), jnp.asarray(second)))
  for u in ((0.0, 0.0), (0.25, 0.5), (1.0, 1.0)):
    in_picture = second[:, :2] + u * second[:, 2:4]
    in_first = (in_picture - first[:, :2]) / first[:, 2:4]
    np.testing.assert_allclose(found[:, :2] + u * found[:, 2:4], in_first, rtol=1e-4, atol=1e-5)
  mirror = np.sign(first[:, 2]) * np.sign(second[:, 2])
  np.testing.assert_array_equal(np.sign(found[:, 2]), mirror)
  assert set(mirror) == {-1, 1}


def test_a_view_leads_to_itself_by_nothing_and_there_and_back_is_nothing():
  first, second = (jnp.asarray(drawn(seed=seed)) for seed in (3, 4))
  nothing = [0, 0, 1, 1] + [0] * len(COLOR)
  np.testing.assert_allclose(relative(first, first), np.broadcast_to(nothing, first.shape), atol=1e-6)
  there, back = np.float64(relative(first, second)), np.float64(relative(second, first))
  np.testing.assert_allclose(there[:, 2:4] * back[:, 2:4], 1, rtol=1e-4)
  np.testing.assert_allclose(there[:, :2] + there[:, 2:4] * back[:, :2], 0, atol=1e-4)
  np.testing.assert_allclose(there[:, 4:], -back[:, 4:], rtol=1e-6)


def test_a_quarter_and_its_mirror_image():
  whole, quarter = [0.0, 0, 1, 1], [0.5, 0.0, -0.5, 0.5]  # the left upper quarter, mirrored
  pad = [0.0] * len(COLOR)
  found = relative(jnp.array(quarter + pad), jnp.array(whole + pad))
  assert found[:4].tolist() == pytest.approx([1, 0, -2, 2]) and len(found) == len(NAMES) == len(BOX) + len(COLOR)
