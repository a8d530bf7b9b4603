import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssljax.errors import UserError
from ssljax.export.table import Line, to_ours, to_theirs, under

QKV = Line("attn/qkv/kernel", "layer.{l}.{t}.weight", "l i t o -> l t o i", labels={"t": ("query", "key", "value")})
LINES = [
  (QKV, (2, 4, 3, 5)),
  (Line("attn/qkv/kernel", "blocks.{l}.qkv.weight", "l i t o -> l (t o) i"), (2, 4, 3, 5)),
  (Line("attn/qkv/bias", "l.{l}.{t}.bias", "l (t o) -> l t o", {"t": 3}, {"t": "qkv"}), (2, 15)),
  (Line("proj/kernel", "proj.weight", "(h w c) o -> o c h w", {"h": 2, "w": 4}), (24, 5)),
  (Line("norm/scale", "blocks.{l}.norm.weight"), (3, 4)),
  (Line("cls_token", "cls_token"), (1, 1, 4)),
]


@pytest.mark.parametrize(("line", "shape"), LINES)
def test_a_line_is_undone_by_itself(line, shape):
  array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
  theirs = line.forwards(array)
  assert list(theirs) == list(line.names(shape).values()) and sum(a.size for a in theirs.values()) == array.size
  np.testing.assert_array_equal(line.backwards(theirs, shape), array)


@given(st.lists(st.integers(1, 4), min_size=4, max_size=4))
def test_names_and_values_of_an_array_taken_apart(shape):
  array = np.arange(np.prod(shape)).reshape(shape)
  labels = {"t": [f"part{n}" for n in range(shape[2])]}
  line = Line("kernel", "layer.{l}.{t}.weight", "l i t o -> l t o i", labels=labels)
  theirs = line.forwards(array)
  for layer in range(shape[0]):
    for part in range(shape[2]):
      np.testing.assert_array_equal(theirs[f"layer.{layer}.part{part}.weight"], array[layer, :, part].T)


def test_patches_are_a_convolution_of_channels_first():
  line = Line("kernel", "weight", "(h w c) o -> o c h w", {"h": 2, "w": 3})
  kernel = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
  np.testing.assert_array_equal(line.forwards(kernel.reshape(24, 5))["weight"], kernel.transpose(3, 2, 0, 1))


def test_prefixes():
  line = under([QKV], ours="encoder/params/", theirs="vit.")[0]
  assert line.ours == "encoder/params/attn/qkv/kernel" and line.names((1, 2, 3, 4))[0, 1] == "vit.layer.0.key.weight"


TABLE = [Line("a/kernel", "a.weight", "i o -> o i"), Line("b", "b.{l}")]
OURS = {"a/kernel": np.ones((2, 3), np.float32), "b": np.zeros((2, 4), np.float32)}
SHAPES = {name: array.shape for name, array in OURS.items()}


def test_there_and_back():
  theirs = to_theirs(TABLE, OURS)
  assert {name: array.shape for name, array in theirs.items()} == {"a.weight": (3, 2), "b.0": (4,), "b.1": (4,)}
  for name, array in to_ours(TABLE, theirs, SHAPES).items():
    np.testing.assert_array_equal(array, OURS[name])
  back = to_ours(TABLE, theirs | {"head.weight": np.ones(3)}, SHAPES, leave=lambda name: name.startswith("head."))
  assert set(back) == set(OURS)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda t: t.pop("b.1"), r"the model has b\.1, the file not"),
    (lambda t: t.update(head=np.ones(2)), "the file has head, the model not"),
    (
      lambda t: t.update({"a.weight": np.ones((2, 3))}),
      r"a\.weight: found shape \[2, 3\], expected \[3, 2\] \(a/kernel\)",
    ),
    (lambda t: t.clear(), r"a\.weight, b\.0, b\.1"),
  ],
)
def test_what_does_not_fit(change, message):
  theirs = to_theirs(TABLE, OURS)
  change(theirs)
  with pytest.raises(UserError, match=message):
    to_ours(TABLE, theirs, SHAPES)


def test_a_table_that_forgets_an_array_is_noticed():
  with pytest.raises(UserError, match="the model has c, the table not"):
    to_theirs(TABLE, OURS | {"c": np.ones(2)})
  with pytest.raises(UserError, match="the table has b, the model not"):
    to_theirs(TABLE, {"a/kernel": OURS["a/kernel"]})
