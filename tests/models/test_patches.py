import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.errors import UserError
from ssljax.models.patches import grid_shape, patchify, random_mask, random_patches, unpatchify


def test_patchify_golden():
  images = jnp.arange(48.0).reshape(1, 3, 4, 4).transpose(0, 2, 3, 1)
  np.testing.assert_array_equal(patchify(images, patch=2)[0, 0], [0, 16, 32, 1, 17, 33, 4, 20, 36, 5, 21, 37])


def test_patchify_takes_patch_after_patch_rows_first():
  images = np.random.default_rng(0).normal(size=(2, 4, 6, 3)).astype("float32")
  expected = [
    [image[2 * r : 2 * r + 2, 2 * c : 2 * c + 2].ravel() for r in range(2) for c in range(3)] for image in images
  ]
  np.testing.assert_array_equal(patchify(jnp.asarray(images), patch=2), np.array(expected))


def test_unpatchify_undoes_patchify():
  images = np.random.default_rng(1).normal(size=(2, 8, 12, 3)).astype("float32")
  patches = patchify(jnp.asarray(images), patch=4)
  np.testing.assert_array_equal(unpatchify(patches, patch=4, grid=(2, 3)), images)
  np.testing.assert_array_equal(unpatchify(patchify(images[:, :, :8], patch=4), patch=4), images[:, :, :8])


def test_indivisible_side_is_named():
  with pytest.raises(UserError, match=r"30 pixels.*patch=8"):
    grid_shape(32, 30, patch=8)


def test_random_patches_are_different_and_follow_the_key():
  keys = jax.random.split(jax.random.key(0), 500)
  found = np.asarray(random_patches(keys, count=8, kept=3))
  assert found.shape == (500, 3) and all(len(set(row)) == 3 for row in found)
  shares = np.bincount(found.ravel(), minlength=8) / 500
  assert np.abs(shares - 3 / 8).max() < 5 * np.sqrt(3 / 8 * 5 / 8 / 500)
  np.testing.assert_array_equal(random_patches(keys[7:9], count=8, kept=3), found[7:9])


def test_random_mask_hides_shares_between_the_bounds():
  keys = jax.random.split(jax.random.key(1), 400)
  found = np.asarray(random_mask(keys, count=20, share=(0.2, 0.5)))
  counts = found.sum(axis=1)
  assert set(counts) == set(range(4, 11)) and found.dtype == bool
  assert np.abs(found.mean(axis=0) - 0.35).max() < 5 * 0.5 / 20
  np.testing.assert_array_equal(random_mask(keys[5:6], count=20, share=(0.2, 0.5))[0], found[5])
  assert np.asarray(random_mask(keys[:3], count=4, share=(0.01, 0.02))).sum() == 3  # at least one each
