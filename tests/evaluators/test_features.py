import jax
import numpy as np
import pytest

from ssljax.errors import UserError
from ssljax.evaluators.features import Features, extract


def batches(rows, batch_size):
  """Host batches of `rows` examples, the last one padded with nonsense."""
  for start in range(0, rows, batch_size):
    index = np.arange(start, start + batch_size)
    valid = index < rows
    yield {"image": np.where(valid, index, 10**6)[:, None], "label": index.astype(np.int64) % 3, "valid": valid}


@jax.jit
def encode(batch):
  return {"embedding": batch["image"] * jax.numpy.array([1.0, 2.0]), "map": jax.numpy.ones((len(batch["image"]), 2, 3))}


@pytest.mark.parametrize("rows", [1, 4, 7, 8])
def test_extract_keeps_valid_rows_in_order(rows):
  x, y = extract(encode, batches(rows, 4))
  np.testing.assert_array_equal(x, np.arange(rows)[:, None] * np.float32([1, 2]))
  np.testing.assert_array_equal(y, np.arange(rows) % 3)
  assert x.dtype == np.float32 and y.dtype == np.int32


def test_extract_flattens_maps():
  assert extract(encode, batches(5, 4), key="map")[0].shape == (5, 6)


def test_extract_without_labels():
  unlabelled = ({k: v for k, v in b.items() if k != "label"} for b in batches(3, 4))
  np.testing.assert_array_equal(extract(encode, unlabelled)[1], [-1, -1, -1])


def test_extract_names_the_unknown_output():
  with pytest.raises(UserError, match=r"embeding \(did you mean embedding"):
    extract(encode, batches(4, 4), key="embeding")
  with pytest.raises(UserError, match="no examples"):
    extract(encode, [])


def test_labelled_refuses_missing_labels_and_empty_splits():
  x = np.ones((2, 2), np.float32)
  with pytest.raises(UserError, match="evaluator knn: found no labels"):
    Features(x, np.int32([-1, -1]), x, np.int32([-1, -1]), 0).labelled("knn")
  with pytest.raises(UserError, match="2 training and 0 test"):
    Features(x, np.int32([0, 1]), x[:0], np.int32([]), 2).labelled("knn")


def test_accuracy():
  x = np.ones((4, 2), np.float32)
  assert Features(x, np.int32([0] * 4), x, np.int32([0, 1, 2, 1]), 3).accuracy(np.int32([0, 1, 1, 1])) == 0.75
