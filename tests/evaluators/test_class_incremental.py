import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssljax import build
from ssljax.errors import UserError
from ssljax.evaluators import class_incremental
from ssljax.evaluators.class_incremental import TEEN, NearestMean, SimpleCIL, merge
from ssljax.evaluators.features import Features

KINDS = (NearestMean, SimpleCIL, TEEN)


def clusters(seed=0, *, classes=7, train=60, test=80, dim=5, noise=1.0):
  """Overlapping classes whose rows differ much in length: normalising or not changes the answers."""
  rng = np.random.default_rng(seed)
  centre = rng.normal(size=(classes, dim))

  def split(rows):
    y = rng.permutation(np.arange(rows) % classes).astype(np.int32)
    x = (centre[y] + noise * rng.normal(size=(rows, dim))) * rng.lognormal(0, 1, size=(rows, 1))
    return x.astype(np.float32), y

  return Features(*split(train), *split(test), classes)


def length(v):
  return math.sqrt(sum(float(a) ** 2 for a in v))


def unit(v):
  return [float(a) / length(v) for a in v]


def dot(a, b):
  return sum(float(p) * float(q) for p, q in zip(a, b, strict=True))


def mean(rows):
  return [sum(float(row[d]) for row in rows) / len(rows) for d in range(len(rows[0]))]


def nearest_mean(f, seen, base):
  means = {c: mean([unit(x) for x, y in zip(f.train_x, f.train_y, strict=True) if y == c]) for c in seen}
  distance = lambda x, m: sum((a - b) ** 2 for a, b in zip(unit(x), m, strict=True))
  return [min(seen, key=lambda c: distance(x, means[c])) for x in f.test_x]


def simple_cil(f, seen, base):
  means = {c: mean([x for x, y in zip(f.train_x, f.train_y, strict=True) if y == c]) for c in seen}
  return [max(seen, key=lambda c: dot(x, means[c]) / length(x) / length(means[c])) for x in f.test_x]


def teen(f, seen, base, *, alpha=0.5, scale=16.0):
  prototype = {c: unit(mean([x for x, y in zip(f.train_x, f.train_y, strict=True) if y == c])) for c in seen}
  for c in seen:
    if c not in base:
      power = [math.exp(scale * dot(prototype[c], prototype[b])) for b in base]
      delta = [sum(p / sum(power) * prototype[b][d] for p, b in zip(power, base, strict=True)) for d in range(5)]
      prototype[c] = [(1 - alpha) * p + alpha * q for p, q in zip(prototype[c], unit(delta), strict=True)]
  return [max(seen, key=lambda c: dot(unit(x), prototype[c]) / length(prototype[c])) for x in f.test_x]


ORACLES = {NearestMean: nearest_mean, SimpleCIL: simple_cil, TEEN: teen}


def by_loops(kind, f, groups, **settings):
  """Session after session from the formulas, everything anew each time: [accuracy of each]."""
  seen, result = [], []
  for group in groups:
    seen += list(group)
    predicted = ORACLES[kind](f, seen, list(groups[0]), **settings)
    tested = [(p, y) for p, y in zip(predicted, f.test_y, strict=True) if y in seen]
    result.append(sum(p == y for p, y in tested) / len(tested))
  return result


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
  ("settings", "groups"),
  [
    ({}, [[0], [1], [2], [3], [4], [5], [6]]),
    ({"sessions": 3}, [[0, 1, 2], [3, 4], [5, 6]]),
    ({"sessions": 4, "base_classes": 3}, [[0, 1, 2], [3, 4], [5], [6]]),
    ({"sessions": 9, "base_classes": 5}, [[0, 1, 2, 3, 4], [5], [6]]),
    ({"sessions": 1}, [[0, 1, 2, 3, 4, 5, 6]]),
    ({"sessions": 3, "order_seed": 1993}, None),
  ],
)
def test_accuracies_equal_loops(kind, settings, groups):
  f = clusters()
  evaluator = kind(**settings)
  if groups is None:
    groups = evaluator.groups(7)
    assert sorted(np.concatenate(groups)) == list(range(7)) and list(np.concatenate(groups)) != list(range(7))
  expected = by_loops(kind, f, groups)
  name = kind.metric
  assert evaluator(f) == pytest.approx({name: expected[-1], f"{name}_average": sum(expected) / len(expected)})
  assert len(set(expected)) > 1 or len(groups) == 1  # the sessions are told apart


@pytest.mark.parametrize(("alpha", "scale"), [(0.1, 16.0), (0.9, 2.0), (0.99, 8.0)])
def test_teen_settings(alpha, scale):
  f = clusters(3)
  expected = by_loops(TEEN, f, [[0, 1, 2, 3], [4, 5], [6]], alpha=alpha, scale=scale)
  found = TEEN(sessions=3, base_classes=4, alpha=alpha, scale=scale)(f)
  assert found == pytest.approx({"teen": expected[-1], "teen_average": sum(expected) / 3})


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), sessions=st.integers(1, 12), base=st.none() | st.integers(1, 7))
def test_the_last_accuracy_does_not_depend_on_the_sessions(seed, sessions, base):
  f = clusters(seed)
  for kind in (NearestMean, SimpleCIL):
    whole = kind(sessions=1)(f)
    assert whole[kind.metric] == whole[f"{kind.metric}_average"]
    cut = kind(sessions=max(sessions, 2), base_classes=base)(f)
    assert cut[kind.metric] == whole[kind.metric]


@pytest.mark.parametrize("base", [1, 4, 7])
def test_teen_without_calibration_is_simple_cil(base):
  f = clusters(5)
  plain = SimpleCIL(sessions=4, base_classes=base)(f)
  assert list(TEEN(sessions=4, base_classes=base, alpha=0.0)(f).values()) == list(plain.values())
  assert TEEN(sessions=1)(f)["teen"] == plain["simple_cil"]  # all classes are base classes


def test_the_three_by_hand():
  """Two classes. Class 0 has rows (100, 0) and (0, 1): one long, one short. Class 1 has (1, 1).

  Raw means (50, .5) and (1, 1): the test row (1, .6), at 31 degrees, is nearer to 45 than to .6. The mean of the
  unit rows (.5, .5) has the direction of class 1's (.71, .71) and is only shorter: distance to (.857, .514) is
  .357 and .243, so class 1 wins; (1, 0) has .707 and .765, so class 0 wins, as it does by cosine.
  """
  train = np.float32([[100, 0], [0, 1], [1, 1]]), np.int32([0, 0, 1])
  f = lambda x, y: Features(*train, np.float32([x]), np.int32([y]), 2)
  for x, y in (((1, 0.6), 1), ((1, 0), 0)):
    assert NearestMean()(f(x, y))["nearest_mean"] == 1 and SimpleCIL()(f(x, y))["simple_cil"] == 1
  # At (0, 1): distances .707 and .765, so NMC says 0; by cosine 0.01 and .71, so SimpleCIL says 1.
  assert NearestMean()(f((0, 1), 0))["nearest_mean"] == 1 and SimpleCIL()(f((0, 1), 1))["simple_cil"] == 1


def test_calibration_by_hand():
  """c = (.6, .8), base (1, 0) and (0, 1), scale 5 log 2: weights 2^3 and 2^4, so d = (8, 16) / 24, at length 1 (1, 2)
  / sqrt 5; alpha .5 puts c' at ((.6 + .4472) / 2, (.8 + .8944) / 2)."""
  moved = class_incremental.calibrate(np.array([[0.6, 0.8]]), np.eye(2), alpha=0.5, scale=5 * math.log(2))
  np.testing.assert_allclose(moved, [[(0.6 + 1 / math.sqrt(5)) / 2, (0.8 + 2 / math.sqrt(5)) / 2]], rtol=1e-12)


def test_huge_scale_takes_the_nearest_base_class():
  later, base = np.array([[0.6, 0.8]]), np.eye(2)
  np.testing.assert_allclose(class_incremental.calibrate(later, base, alpha=1.0, scale=1e6), [[0, 1]])


def test_calibration_moves_later_classes_only():
  """Class 1 is drawn half way to class 0's direction (the base), which then loses test rows it had; 0 stays."""
  train = np.float32([[1, 0], [0, 1]]), np.int32([0, 1])
  at = lambda degrees: [math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]
  f = Features(*train, np.float32([at(a) for a in (10, 22, 23, 80)]), np.int32([0, 0, 1, 1]), 2)
  assert SimpleCIL()(f) == {"simple_cil": 0.75, "simple_cil_average": 0.875}  # 23 degrees are nearer to 0 than to 90
  assert TEEN()(f) == {"teen": 1.0, "teen_average": 1.0}  # class 1 is at 45 degrees, the border at 22.5


@pytest.mark.parametrize(
  ("sessions", "classes", "base", "sizes"),
  [
    (10, 100, None, [10] * 10),
    (10, 4, None, [1] * 4),
    (3, 8, None, [3, 3, 2]),
    (9, 100, 60, [60] + [5] * 8),
    (6, 100, 50, [50] + [10] * 5),
    (10, 4, 4, [4]),
    (1, 4, 4, [4]),
    (1, 1, None, [1]),
  ],
)
def test_sizes_of_the_sessions(sessions, classes, base, sizes):
  groups = SimpleCIL(sessions=sessions, base_classes=base).groups(classes)
  assert [len(g) for g in groups] == sizes
  np.testing.assert_array_equal(np.concatenate(groups), np.arange(classes))


def test_the_published_order_of_seed_1993():
  """As the class order of CIFAR-100 is printed in the field's code."""
  order = np.concatenate(SimpleCIL(order_seed=1993).groups(100))
  assert order[:20].tolist() == [68, 56, 78, 8, 23, 84, 90, 65, 74, 76, 40, 89, 3, 92, 55, 9, 26, 80, 43, 38]
  assert sorted(order) == list(range(100))


@pytest.mark.parametrize("kind", KINDS)
def test_length_of_test_rows_and_unit_of_features_are_ignored(kind):
  f = clusters(8)
  stretch = np.random.default_rng(0).lognormal(0, 2, size=(len(f.test_x), 1)).astype(np.float32)
  other = dataclasses.replace(f, train_x=f.train_x * 8, test_x=f.test_x * stretch)
  assert kind(sessions=3)(other) == kind(sessions=3)(f)


@pytest.mark.parametrize("kind", KINDS)
def test_names_of_classes_and_order_of_rows_are_ignored(kind):
  """Shuffled training rows; and with one session the classes renamed."""
  f = clusters(9)
  rows = np.random.default_rng(0).permutation(len(f.train_y))
  assert kind(sessions=3)(dataclasses.replace(f, train_x=f.train_x[rows], train_y=f.train_y[rows])) == kind(sessions=3)(
    f
  )
  names = np.random.default_rng(1).permutation(7).astype(np.int32)
  renamed = dataclasses.replace(f, train_y=names[f.train_y], test_y=names[f.test_y])
  assert kind(sessions=1)(renamed) == kind(sessions=1)(f)


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_change_nothing(kind, monkeypatch):
  f = clusters(10)
  whole = kind(sessions=3)(f)
  monkeypatch.setattr(class_incremental, "_CHUNK", 7)
  assert kind(sessions=3)(f) == whole


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("absent", [0, 4, 6])
def test_a_class_without_training_rows_is_never_predicted(kind, absent):
  """Its test rows are wrong, all others as if it did not exist."""
  f = clusters(11)
  keep, tested = f.train_y != absent, f.test_y != absent
  f = dataclasses.replace(f, train_x=f.train_x[keep], train_y=f.train_y[keep])
  without = dataclasses.replace(f, test_x=f.test_x[tested], test_y=f.test_y[tested])
  found = kind(sessions=3)(f)[kind.metric]
  assert found == pytest.approx(kind(sessions=3)(without)[kind.metric] * tested.mean()) and found > 0
  expected = by_loops(kind, without, [[c for c in g if c != absent] for g in ([0, 1, 2], [3, 4], [5, 6])])
  assert kind(sessions=3)(without)[kind.metric] == pytest.approx(expected[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_sessions_without_test_rows_are_left_out_of_the_mean(kind):
  f = clusters(12)
  tested = f.test_y >= 3
  f = dataclasses.replace(f, test_x=f.test_x[tested], test_y=f.test_y[tested])
  expected = []
  for seen in ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5, 6]):
    predicted = ORACLES[kind](f, seen, [0, 1, 2])
    expected.append(np.mean([p == y for p, y in zip(predicted, f.test_y, strict=True) if y in seen]))
  assert kind(sessions=3)(f)[f"{kind.metric}_average"] == pytest.approx(np.mean(expected))


def test_teen_with_an_empty_base_session_calibrates_nothing():
  f = clusters(13)
  keep = f.train_y > 0
  f = dataclasses.replace(f, train_x=f.train_x[keep], train_y=f.train_y[keep])
  assert TEEN(alpha=1.0)(f)["teen"] == SimpleCIL()(f)["simple_cil"] > 0.2


@pytest.mark.parametrize("kind", KINDS)
def test_zero_rows_are_no_nan(kind):
  f = clusters(14)
  zero = dataclasses.replace(f, train_x=f.train_x * 0)
  assert all(0 <= value <= 1 for value in kind()(zero).values())


def test_merged_means_and_cosines():
  """ADAM: the cosine over both embeddings side by side, neither normalised first."""
  first, second = clusters(15), clusters(16)
  second = dataclasses.replace(
    second,
    train_x=second.train_x[:, :3] * 5,
    test_x=second.test_x[:, :3] * 5,
    train_y=first.train_y,
    test_y=first.test_y,
  )
  both = merge(first, second)
  assert both.train_x.shape == (60, 8) and both.test_x.shape == (80, 8) and both.train_x.dtype == np.float32
  np.testing.assert_array_equal(both.test_x[:, 5:], second.test_x)
  np.testing.assert_array_equal(both.train_y, first.train_y)
  expected = by_loops(SimpleCIL, both, [[0, 1, 2], [3, 4], [5, 6]])
  assert SimpleCIL(sessions=3)(both)["simple_cil_average"] == pytest.approx(sum(expected) / 3)
  assert SimpleCIL()(merge(first, first)) == SimpleCIL()(first)


@pytest.mark.parametrize(
  "change",
  [
    {"train_y": lambda f: (f.train_y + 1) % 7},
    {"test_y": lambda f: f.test_y[::-1]},
    {"train_x": lambda f: f.train_x[:9], "train_y": lambda f: f.train_y[:9]},
    {"num_classes": lambda f: 8},
  ],
  ids=lambda change: next(reversed(change)),
)
def test_merge_refuses_other_examples(change):
  f = clusters(17)
  other = dataclasses.replace(f, **{key: function(f) for key, function in change.items()})
  with pytest.raises(UserError, match=f"merge: {next(reversed(change))}"):
    merge(f, other)


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"sessions": 0}, "sessions 0"),
    ({"base_classes": 0}, "base_classes 0"),
    ({"order_seed": -1}, "order_seed -1"),
    ({"base_classes": 8}, "at most the 7 classes"),
    ({"base_classes": 3, "sessions": 1}, "a session for the rest"),
  ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_settings_that_cannot_be_are_named(kind, settings, message):
  with pytest.raises(UserError, match=f"{kind.metric}: .*{message}"):
    kind(**settings)(clusters())


@pytest.mark.parametrize("alpha", [-0.1, 1.1, math.nan])
def test_alpha_is_a_share(alpha):
  with pytest.raises(UserError, match="alpha"):
    TEEN(alpha=alpha)


@pytest.mark.parametrize("kind", KINDS)
def test_built_by_name(kind):
  name = f"class_incremental.{kind.__name__}"
  assert name in build.names("evaluators")
  section = {"name": name, "sessions": 5, "base_classes": None, "order_seed": 1993}
  assert build.build(section, "evaluators", where="e") == kind(sessions=5, order_seed=1993)
  with pytest.raises(UserError, match="base_classes"):
    build.build({"name": name, "base_classes": "6"}, "evaluators", where="e")
  unlabelled = dataclasses.replace(clusters(), train_y=np.full(60, -1, np.int32), num_classes=0)
  with pytest.raises(UserError, match=kind.metric):
    kind()(unlabelled)


def test_only_the_evaluators_are_listed():
  listed = [n.split(".")[1] for n in build.names("evaluators") if n.startswith("class_incremental.")]
  assert sorted(listed) == ["NearestMean", "SimpleCIL", "TEEN"]
