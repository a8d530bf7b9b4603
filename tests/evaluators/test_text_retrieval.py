"""Rankings of passages: BM25 word by word, chance by random rankings, fusion by hand."""

import math

import numpy as np
import pytest

from ssljax.data.search import Search
from ssljax.errors import UserError
from ssljax.evaluators import bm25
from ssljax.evaluators.text_retrieval import TextRetrieval, fused, without

PASSAGES = ["The cat sat; the cat slept.", "A dog, a cat", "nothing of it", "", "dog dog dog dog day_1"]


def slow_bm25(query, passages):
  split = [bm25.words(text) for text in passages]
  mean = sum(map(len, split)) / len(split)
  scores = []
  for passage in split:
    score = 0.0
    for word in bm25.words(query):
      inside = sum(word in other for other in split)
      tf = passage.count(word)
      idf = math.log(1 + (len(split) - inside + 0.5) / (inside + 0.5))
      score += idf * tf / (tf + 0.9 * (1 - 0.4 + 0.4 * len(passage) / mean))
    scores.append(score)
  return scores


def test_bm25_is_its_formula():
  queries = ["CAT", "the dog's day_1", "dog dog cat", "unknown words", "..."]
  for query, found in zip(queries, bm25.bm25_scores(queries, PASSAGES), strict=True):
    np.testing.assert_allclose(found, slow_bm25(query, PASSAGES), rtol=1e-6, atol=1e-7)
  assert bm25.bm25_ranked(["cat", "?"], PASSAGES, k=9).tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]
  assert bm25.bm25_ranked(["dog"], PASSAGES, k=2).tolist() == [[4, 1]]


def test_words_and_equals():
  assert bm25.words("The dog's DAY_1, É!") == ["the", "dog", "s", "day_1", "é"]
  assert bm25.bm25_ranked(["cat"], ["cat", "dog"] * 30, k=31).tolist() == [[*range(0, 60, 2), 1]]


def test_passages_without_any_word():
  assert bm25.bm25_ranked(["cat"], ["", "."], k=2).tolist() == [[0, 1]]


def search(relevance, count):
  rows = np.zeros((len(relevance), 4), np.int32)
  texts = [""] * count
  return Search("task", rows, np.zeros((count, 4), np.int32), relevance, [""] * len(relevance), texts)


def test_numbers_of_a_ranking_and_of_chance():
  given = search([{0: 1.0}, {1: 2.0, 4: 1.0}, {2: 1.0}], 12)
  found = TextRetrieval(ks=(1, 3))(given, np.array([[0, 1, 2], [3, 4, 5], [0, 1, 3]]))
  assert (found["task_r@1"], found["task_r@3"]) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
  assert found["task_ndcg@10"] == pytest.approx((1 + (1 / np.log2(3)) / (2 + 1 / np.log2(3))) / 3)
  rng = np.random.default_rng(0)
  random = [TextRetrieval()(given, np.stack([rng.permutation(12) for _ in range(3)])) for _ in range(1500)]
  for key, value in TextRetrieval().chance(given).items():
    assert np.mean([scores[key] for scores in random]) == pytest.approx(value, abs=0.025), key


def test_fused_rankings_by_hand():
  first, second = np.array([[7, 8, 9]]), np.array([[9, 7, 5]])
  # 7: 1/61 + 1/62; 9: 1/63 + 1/61; 8: 1/62; 5: 1/63.
  assert fused([first, second]).tolist() == [[7, 9, 8]]
  assert fused([first, first]).tolist() == first.tolist()
  assert fused([np.array([[1, 2]]), np.array([[3, 4]])]).tolist() == [[1, 3]]  # of equals the first one's


def test_fused_by_one_over_sixty_and_the_rank():
  first, second = np.arange(100)[None], np.arange(100, 200)[None]
  second[0, 99], second[0, 28] = 0, 28  # 1/61 + 1/160 lies between 2/89 and 2/88
  assert fused([first, second])[0, :2].tolist() == [0, 28]
  second[0, 99], second[0, 27] = 0, 27
  first[0, 27], second[0, 28] = 27, 128
  assert fused([first, second])[0, :2].tolist() == [27, 0]


def test_a_query_does_not_find_itself():
  found = np.array([[4, 2, 0], [1, 3, 5], [6, 7, 8]])
  assert without(found, np.array([2, -1, 8]), k=2).tolist() == [[4, 0], [1, 3], [6, 7]]
  assert without(found, None, k=2).tolist() == found[:, :2].tolist()


def test_too_few_passages_and_no_ks():
  with pytest.raises(UserError, match=r"evaluation.test: found 10 passages \(task\), expected more than 10"):
    TextRetrieval().check(search([{0: 1.0}], 10))
  TextRetrieval(ks=(1, 5)).check(search([{0: 1.0}], 10))
  with pytest.raises(UserError, match=r"ks \[\], expected numbers from 1"):
    TextRetrieval(ks=())
