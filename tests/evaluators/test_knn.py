import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssljax.errors import UserError
from ssljax.evaluators import knn
from ssljax.evaluators.features import Features


def clusters(rng, rows, *, classes=4, dim=6, noise=1.2):
  y = rng.integers(0, classes, rows).astype(np.int32)
  centre = np.random.default_rng(99).normal(size=(classes, dim))
  return (centre[y] + noise * rng.normal(size=(rows, dim))).astype(np.float32), y


def oracle(train_x, train_y, test_x, *, k, temperature, num_classes):
  """Weighted kNN by loops, from the formula."""
  result = []
  for t in test_x.astype(np.float64):
    similarity = []
    for r in train_x.astype(np.float64):
      similarity.append(sum(t * r) / math.sqrt(sum(t * t)) / math.sqrt(sum(r * r)))
    votes = [0.0] * num_classes
    for i in sorted(range(len(train_x)), key=lambda i: -similarity[i])[:k]:
      votes[train_y[i]] += math.exp(similarity[i] / temperature)
    result.append(votes.index(max(votes)))
  return result


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.07), (20, 1.0), (500, 0.3)])
def test_predict_equals_loops(k, temperature):
  rng = np.random.default_rng(0)
  (train_x, train_y), (test_x, _) = clusters(rng, 90), clusters(rng, 40)
  settings = dict(k=k, temperature=temperature, num_classes=4)
  np.testing.assert_array_equal(
    knn.predict(train_x, train_y, test_x, **settings), oracle(train_x, train_y, test_x, **settings)
  )


def test_nearer_votes_weigh_more():
  """One neighbour at cosine 1 against two at cosine 0.5: e^(1/T) > 2 e^(.5/T) below T = .5/log 2 = .7213."""
  train = np.float32([[1, 0], [0.5, math.sqrt(0.75)], [0.5, -math.sqrt(0.75)]])
  predict = lambda t: knn.predict(train, np.int32([0, 1, 1]), train[:1], k=3, temperature=t, num_classes=2)[0]
  assert predict(0.72) == 0 and predict(0.73) == 1


def test_tiny_temperature_does_not_overflow():
  """exp(1 / T) and exp(.8 / T) are both infinite in float32: the nearer one has to win all the same."""
  train = np.float32([[0.8, 0.6], [1, 0]])
  assert knn.predict(train, np.int32([0, 1]), train[1:], k=2, temperature=1e-4, num_classes=2) == 1


@settings(max_examples=8, deadline=None)
@given(scale=st.floats(1e-3, 1e3))
def test_length_of_features_is_ignored(scale):
  rng = np.random.default_rng(1)
  (train_x, train_y), (test_x, _) = clusters(rng, 50), clusters(rng, 12)
  predict = lambda a, b: knn.predict(a, train_y, b, k=7, temperature=0.07, num_classes=4)
  np.testing.assert_array_equal(predict(train_x * np.float32(scale), test_x), predict(train_x, test_x))


def test_chunks_change_nothing(monkeypatch):
  rng = np.random.default_rng(2)
  (train_x, train_y), (test_x, _) = clusters(rng, 50), clusters(rng, 23)
  whole = knn.predict(train_x, train_y, test_x, k=7, temperature=0.07, num_classes=4)
  monkeypatch.setattr(knn, "_CHUNK", 5)
  split = knn.predict.__wrapped__(train_x, train_y, test_x, k=7, temperature=0.07, num_classes=4)
  np.testing.assert_array_equal(whole, split)


def test_nearest_rows_are_sorted():
  train = np.float32([[1, 0], [1, 1], [0, 1], [-1, 0]])
  np.testing.assert_array_equal(knn.nearest_rows(train, np.float32([[3, 1]]), k=3), [[0, 1, 2]])


def test_zero_rows_are_no_nan():
  assert jnp.isfinite(knn.normalize(jnp.zeros((1, 3)))).all()


def test_evaluator():
  rng = np.random.default_rng(3)
  f = Features(*clusters(rng, 200, noise=0.2), *clusters(rng, 30, noise=0.2), 4)
  assert knn.KNN()(f) == {"knn": 1.0}
  shuffled = Features(f.train_x, rng.permutation(f.train_y), f.test_x, f.test_y, 4)
  assert knn.KNN()(shuffled)["knn"] < 0.7
  with pytest.raises(UserError, match="knn"):
    knn.KNN()(Features(f.train_x, f.train_y * 0 - 1, f.test_x, f.test_y * 0 - 1, 0))
