import numpy as np
import pytest

from ssljax.evaluators import rankme
from ssljax.evaluators.features import Features


def with_singular_values(sigma, rows=9):
  rng = np.random.default_rng(0)
  u, _ = np.linalg.qr(rng.normal(size=(rows, len(sigma))))
  v, _ = np.linalg.qr(rng.normal(size=(len(sigma), len(sigma))))
  return (u * sigma @ v.T).astype(np.float32)


@pytest.mark.parametrize(
  ("features", "eps", "golden"),
  [
    (with_singular_values([4.0, 2.0, 1.0, 1.0]), 0.0, 3.3635856610),
    (np.eye(8), 1e-7, 8.0000069),
    (np.ones((32, 8)), 1e-7, 1.0000111827),
  ],
)
def test_golden(features, eps, golden):
  np.testing.assert_allclose(rankme.rankme(features, eps=eps), golden, rtol=1e-5)


def test_scale_and_rotation_change_nothing():
  x = with_singular_values([3.0, 2.0, 0.5])
  rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0].astype(np.float32)
  np.testing.assert_allclose(rankme.rankme(100 * x @ rotation), rankme.rankme(x), rtol=1e-5)


def test_all_zero_features_are_finite():
  assert np.isfinite(rankme.rankme(np.zeros((4, 3))))


def test_feature_std_of_a_collapsed_a_full_and_a_two_point_sphere():
  assert rankme.feature_std(np.ones((5, 4)) * np.arange(1, 6)[:, None]) < 1e-6
  normal = np.random.default_rng(0).normal(size=(4000, 16)).astype(np.float32)
  np.testing.assert_allclose(rankme.feature_std(normal), 1 / 4, rtol=1e-2)
  np.testing.assert_allclose(rankme.feature_std(np.float32([[3, 0], [-7, 0]])), 0.5, rtol=1e-6)


def test_evaluators_need_no_labels():
  x = np.eye(8, dtype=np.float32)
  f = Features(x, np.full(8, -1, np.int32), x, np.full(8, -1, np.int32), 0)
  assert rankme.RankMe()(f)["rankme"] == pytest.approx(8, rel=1e-5)
  assert rankme.RankMe(samples=4)(f)["rankme"] == pytest.approx(4, rel=1e-5)
  assert rankme.FeatureStd()(f)["feature_std"] == pytest.approx(np.std(np.eye(8), axis=0).mean())


def test_sample_reaches_both_ends():
  np.testing.assert_array_equal(rankme._sample(np.arange(10), 4), [0, 3, 6, 9])
  np.testing.assert_array_equal(rankme._sample(np.arange(3), 9), [0, 1, 2])
