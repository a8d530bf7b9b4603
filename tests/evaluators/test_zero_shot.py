import numpy as np
import pytest

from ssljax.errors import UserError
from ssljax.evaluators.pairs import PairFeatures
from ssljax.evaluators.zero_shot import ZeroShot, class_vectors

DIRECTIONS = {"cat": [1.0, 0.0, 0.0], "dog": [0.0, 1.0, 0.0], "tree": [0.0, 0.0, 1.0]}


def encode(texts):
  """The class' direction, turned and lengthened by the prompt."""
  vectors = {"a {}": 1.0, "the {}": 5.0}
  rows = []
  for text in texts:
    prompt, name = next((p, n) for p in vectors for n in DIRECTIONS if p.format(n) == text)
    turned = np.roll(DIRECTIONS[name], 1) if prompt == "the {}" and name == "cat" else np.array(DIRECTIONS[name])
    rows.append(vectors[prompt] * turned)
  return np.array(rows)


def features(images, labels, names=tuple(DIRECTIONS)):
  return PairFeatures(np.asarray(images), np.zeros((0, 3)), np.zeros((0, 2), int), labels, names, (), encode)


def test_prompts_are_averaged_at_length_one():
  vectors = class_vectors(encode, ["cat", "dog"], ["a {}", "the {}"])
  np.testing.assert_allclose(vectors, [[0.5**0.5, 0.5**0.5, 0], [0, 1, 0]], atol=1e-6)  # the long one counts no more


def test_accuracy_beside_chance():
  images = [[1.0, 0.0, 0.0], [0.9, 0.1, 0.0], [0.0, 0.1, 0.9], [0.0, 1.0, 0.0]]
  found = ZeroShot(prompts=("a {}",))(features(images, np.array([0, 0, 2, 0])))
  assert found == {"zero_shot": 0.75, "zero_shot_chance": pytest.approx(1 / 3), "zero_shot_majority": 0.75}


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: ZeroShot(prompts=()), "prompts is empty"),
    (lambda: ZeroShot(prompts=("a photo",)), r"prompts 'a photo', expected one \{\}"),
    (lambda: ZeroShot()(features([[1.0, 0, 0]], None)), "no labels with names"),
    (lambda: ZeroShot()(features([[1.0, 0, 0]], np.array([0]), None)), "no labels with names"),
    (lambda: ZeroShot(names=("cat",))(features([[1.0, 0, 0]], np.array([2]))), "names has 1, labels go up to 2"),
  ],
)
def test_what_it_cannot_do_without(make, message):
  with pytest.raises(UserError, match=message):
    make()
