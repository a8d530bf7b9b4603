import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssljax.errors import UserError
from ssljax.evaluators.pairs import PairFeatures
from ssljax.evaluators.retrieval import Retrieval, chance_at, ndcg_at, ranked, recall_at


def features(images, texts, owner, **more):
  given = {"labels": None, "class_names": None, "captions": (), "encode": lambda texts: np.zeros((len(texts), 2))}
  pairs = np.stack([np.asarray(owner), np.arange(len(texts))], axis=1)
  return PairFeatures(np.asarray(images, np.float32), np.asarray(texts, np.float32), pairs, **given | more)


def test_any_text_of_an_image_counts_and_a_text_has_one_image():
  angles = lambda *degrees: np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], axis=1)
  # Images at 0 and 90; texts of 0: at 80 and 5, texts of 1: at 60 and 200.
  found = Retrieval(ks=(1, 2))(features(angles(0, 90), angles(80, 5, 60, 200), [0, 0, 1, 1]))
  # Image 0 sees 5 first (right); image 1 sees 80 (wrong), then 60 (right).
  assert (found["i2t_r@1"], found["i2t_r@2"]) == (0.5, 1.0)
  # Text 80 is nearest to image 1 (wrong); 5 to image 0 (right); 60 to image 1 (right); 200 to image 1 (right).
  assert (found["t2i_r@1"], found["t2i_r@2"]) == (0.75, 1.0)
  assert found["t2i_chance@1"] == 0.5 and found["i2t_chance@1"] == 0.5
  assert found["i2t_chance@2"] == pytest.approx(1 - (2 / 4) * (1 / 3))


@given(st.integers(1, 6), st.integers(1, 8), st.integers(1, 9), st.integers(0, 99))
def test_recall_equals_counting_by_hand(images, texts, k, seed):
  rng = np.random.default_rng(seed)
  x, y, owner = rng.normal(size=(images, 3)), rng.normal(size=(texts, 3)), rng.integers(0, images, texts)
  found = Retrieval(ks=(k,))(features(x, y, owner))
  products = x.astype(np.float32).astype(np.float64) @ y.astype(np.float32).astype(np.float64).T
  asking = [i for i in range(images) if i in owner]
  hits = [np.isin(np.argsort(-products[i])[:k], np.flatnonzero(owner == i)).any() for i in asking]
  assert found[f"i2t_r@{k}"] == pytest.approx(np.mean(hits))
  hits = [owner[text] in np.argsort(-products[:, text])[:k] for text in range(texts)]
  assert found[f"t2i_r@{k}"] == pytest.approx(np.mean(hits))


def test_a_text_of_several_images_finds_any_of_them():
  given = features(np.eye(3), np.eye(3)[[1, 2]], [1, 2])
  both = given._replace(pairs=np.array([[0, 0], [1, 0], [2, 1]]))
  found = Retrieval(ks=(1,))(both)
  assert (found["t2i_r@1"], found["t2i_chance@1"]) == (1.0, pytest.approx((2 / 3 + 1 / 3) / 2))
  assert found["i2t_r@1"] == 1.0  # image 0 is as far from both texts; the first, its own, comes first
  alone = Retrieval(ks=(1,))(given)  # image 0 has no text
  assert (alone["i2t_r@1"], alone["t2i_r@1"]) == (1.0, 1.0)


def test_first_captions_alone():
  images = [[1.0, 0.1, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
  given = features(images, np.eye(3)[[2, 0, 1, 1]], [0, 0, 1, 2])._replace(captions=("a", "b", "c", "d"))
  first = given.first()
  assert first.captions == ("a", "c", "d") and first.pairs.tolist() == [[0, 0], [1, 1], [2, 2]]
  assert Retrieval(ks=(1,))(given)["i2t_r@1"] == pytest.approx(2 / 3)  # image 0 finds its second text
  assert Retrieval(ks=(1,), captions="first")(given)["i2t_r@1"] == pytest.approx(1 / 3)


def test_chance_is_what_random_orders_give():
  rng = np.random.default_rng(0)
  relevant = [{0}, {1, 2}, {0, 3, 4}]
  orders = [np.stack([rng.permutation(7) for _ in relevant]) for _ in range(4000)]
  assert np.mean([recall_at(order, relevant, k=3) for order in orders]) == pytest.approx(
    chance_at(relevant, candidates=7, k=3), abs=0.01
  )
  assert chance_at([{0}], candidates=3, k=10) == 1.0


def test_ranked_takes_the_lower_index_of_equals():
  assert ranked(np.ones((1, 2)), np.ones((4, 2)), k=3).tolist() == [[0, 1, 2]]


def test_ranked_in_parts_is_ranked_at_once(monkeypatch):
  rng = np.random.default_rng(0)
  queries, candidates = rng.normal(size=(7, 3)), rng.normal(size=(5, 3))
  whole = ranked(queries, candidates, k=4)
  np.testing.assert_array_equal(whole, np.argsort(-(queries @ candidates.T), axis=1)[:, :4])
  for most in (1, 14):
    monkeypatch.setattr("ssljax.evaluators.retrieval._PRODUCTS", most)
    np.testing.assert_array_equal(ranked(queries, candidates, k=4), whole)


def test_ndcg_by_hand():
  relevance = [{0: 2.0, 3: 1.0}, {5: 1.0}, {}]
  found = np.array([[3, 1, 0], [4, 3, 5], [0, 1, 2]])
  first = (1.0 + 2.0 / 2) / (2.0 + 1.0 / np.log2(3))
  assert ndcg_at(found, relevance, k=3) == pytest.approx((first + 0.5) / 2)
  assert ndcg_at(found, relevance, k=2) == pytest.approx((1.0 / (2.0 + 1.0 / np.log2(3)) + 0.0) / 2)
  assert ndcg_at(np.array([[0, 3, 1]]), relevance[:1], k=10) == pytest.approx(1.0)


def test_ndcg_equals_that_of_scikit_learn():
  from sklearn.metrics import ndcg_score

  rng = np.random.default_rng(1)
  gains, scores = rng.integers(0, 4, (5, 12)).astype(float), rng.normal(size=(5, 12))
  found = np.argsort(-scores, axis=1)
  relevance = [{i: gain for i, gain in enumerate(row) if gain} for row in gains]
  assert ndcg_at(found, relevance, k=10) == pytest.approx(ndcg_score(gains, scores, k=10))


def test_no_ks():
  with pytest.raises(UserError, match=r"ks \[0\], expected numbers from 1"):
    Retrieval(ks=(0,))
