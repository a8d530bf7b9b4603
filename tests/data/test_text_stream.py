"""Plan, rows and stream: nothing lost, nothing twice, the same for ever, whoever reads it."""

import pickle
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssljax.data import denoising, plan
from ssljax.data.mixture import GROUPS, MODES, Mixture, named
from ssljax.data.text_stream import TextStream
from ssljax.data.tokenizer import open_tokenizer
from ssljax.data.vocabulary import Vocabulary

LAYOUTS = {"encoder_decoder": (48, 40), "decoder_only": (64, 0)}


def make_stream(layout="encoder_decoder", mixture="ul2", *, lengths=None, seed=0, batch_size=4, modes="ul2", **options):
  generator = np.random.default_rng(5)
  lengths = generator.integers(1, 200, 30) if lengths is None else np.array(lengths)
  rows = {"row_inputs": 96, "row_targets": 60} if options.pop("packed", False) else {}
  mixed = Mixture(named(mixture), layout, *LAYOUTS[layout], modes, **rows)
  tokens = generator.integers(3, 259, lengths.sum()).astype(np.uint16)
  store = types.SimpleNamespace(tokens=tokens, offsets=np.append(0, np.cumsum(lengths)))
  vocabulary = Vocabulary(open_tokenizer("bytes"), mixed.mode_names, mixed.sentinels)
  return TextStream(tokens=store, mixture=mixed, vocabulary=vocabulary, seed=seed, batch_size=batch_size, **options)


def epoch(stream, number=0):
  begin = sum(stream.plan(e).rows for e in range(number))
  return stream.rows(np.arange(begin, begin + stream.plan(number).rows))


def examples(stream, arrays):
  """The text of every example of a batch, corruption undone."""
  v, found = stream.vocabulary, []
  modes = {v.mode(name) for name in v.modes}
  for row, segments in enumerate(arrays["target_segments"]):
    for segment in range(1, segments.max() + 1):
      target = arrays["targets"][row][segments == segment]
      if "inputs" in arrays:
        source = arrays["inputs"][row][arrays["input_segments"][row] == segment]
        assert source[-1] == v.eos
        source = source[:-1]
      else:
        prefix = arrays["prefix"][row][segments == segment] > 0
        source, target = target[prefix], target[~prefix]
      assert target[-1] == v.eos and v.eos not in target[:-1]
      source, target = [t for t in source if t not in modes], target[:-1]
      if v.sentinels and any(v.kind(t) == "sentinel" for t in target):
        text = denoising.restore(np.array(source), target, last_sentinel=v.last_sentinel, spans=v.sentinels)
      else:
        text = np.concatenate([source, target])
      found.append(tuple(text.astype(int)))
  return found


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mixture", ["ul2", "ul2r", "causal_lm"])
@pytest.mark.parametrize("packed", [False, True])
def test_an_epoch_holds_every_token_once(layout, mixture, packed):
  stream = make_stream(layout, mixture, packed=packed and layout == "encoder_decoder")
  pieces = examples(stream, epoch(stream))
  by_document = [tuple(d.astype(int)) for d in np.split(stream.tokens.tokens, stream.tokens.offsets[1:-1])]
  assert sum(map(len, pieces)) == len(stream.tokens.tokens)
  plan_ = stream.plan(0).examples
  order = np.argsort(plan_.begin)
  assert (plan_.begin[order][1:] == (plan_.begin + plan_.length)[order][:-1]).all()  # a partition of the store
  texts = {tuple(stream.tokens.tokens[b : b + n].astype(int)) for b, n in zip(plan_.begin, plan_.length, strict=True)}
  assert texts == set(pieces) and all(
    any(p == d[i : i + len(p)] for d in by_document for i in range(len(d))) for p in pieces[:9]
  )


@settings(deadline=None, max_examples=25)
@given(
  lengths=st.lists(st.integers(1, 150), min_size=1, max_size=12),
  seed=st.integers(0, 2**31),
  name=st.sampled_from(["ul2", "ul2r", "prefix_lm"]),
)
def test_corruption_is_undone_for_any_documents(lengths, seed, name):
  for layout in LAYOUTS:
    stream = make_stream(layout, name, lengths=lengths, seed=seed)
    arrays = epoch(stream)
    assert sorted(t for text in examples(stream, arrays) for t in text) == sorted(stream.tokens.tokens.astype(int))


def test_segments_and_positions():
  stream = make_stream(packed=True)
  arrays = epoch(stream)
  for side in ("input", "target"):
    segments, positions = arrays[f"{side}_segments"], arrays[f"{side}_positions"]
    step = np.diff(segments, axis=1)
    assert ((step == 0) | (step == 1) | (segments[:, 1:] == 0)).all()  # 1 1 1 2 2 3 0 0
    inside = (step == 0) & (segments[:, 1:] > 0)
    assert (np.diff(positions, axis=1)[inside] == 1).all() and (positions[:, 1:][step == 1] == 0).all()
    assert not arrays["inputs" if side == "input" else "targets"][segments == 0].any()
  assert arrays["target_segments"].max() > 1  # several examples in a row


def test_modes_come_first_and_say_the_group():
  stream = make_stream(packed=True)
  arrays, v = epoch(stream), stream.vocabulary
  first = (arrays["input_positions"] == 0) & (arrays["input_segments"] > 0)
  names = {v.mode(name): name for name in v.modes}
  for row, column in np.argwhere(first):
    mine = arrays["target_segments"][row] == arrays["input_segments"][row, column]
    (group,) = set(arrays["target_group"][row][mine])
    assert names[arrays["inputs"][row, column]] == MODES["ul2"][GROUPS[group]]


def test_bytes_are_those_of_predicted_text():
  for layout in LAYOUTS:
    stream = make_stream(layout)
    arrays = epoch(stream)
    plan_ = stream.plan(0).examples
    assert arrays["target_bytes"].sum() == (plan_.length - plan_.visible).sum()  # bytes are tokens here


def test_realised_rates_are_the_mixtures():
  stream = make_stream(lengths=[3000] * 40)
  drawn = np.bincount(stream.plan(0).examples.denoiser, minlength=7) / len(stream.plan(0).examples.begin)
  assert np.abs(drawn - 1 / 7).max() < 5 * np.sqrt(1 / 7 / len(stream.plan(0).examples.begin))
  for number, denoiser in enumerate(stream.mixture.denoisers):
    mine = stream.plan(0).examples.take(stream.plan(0).examples.denoiser == number)
    hidden = (mine.length - mine.visible).sum() / mine.length.sum()
    # A short piece hides at least one token and at least one span, so means are only near what is asked.
    assert hidden == pytest.approx(denoiser.density, rel=0.12)


def test_disjoint_documents():
  stream = make_stream(documents="disjoint", lengths=[400] * 60)
  for number in range(2):
    plan_ = stream.plan(number).examples
    document = np.searchsorted(stream.tokens.offsets, plan_.begin, side="right")
    pairs = set(zip(document.tolist(), plan_.denoiser.tolist(), strict=True))
    assert len(pairs) == 60  # one denoiser a document
    if number == 0:
      first = pairs
  assert pairs == first


def test_batches_are_a_function_of_seed_and_step():
  stream, other = make_stream(), make_stream()
  late = [stream.batch(step).arrays for step in (40, 3)]
  again = [other.batch(step).arrays for step in (3, 40)][::-1]
  for a, b in zip(late, again, strict=True):
    assert all((a[key] == b[key]).all() for key in a)
  different = make_stream(seed=1).batch(3).arrays
  assert any((late[1][key] != different[key]).any() for key in ("inputs", "targets"))


def test_hosts_read_the_parts_of_one_batch():
  whole = make_stream().batch(7).arrays
  parts = [make_stream(host=host, num_hosts=2).batch(7).arrays for host in range(2)]
  for key, value in whole.items():
    assert (value == np.concatenate([part[key] for part in parts])).all()


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_change_nothing(workers):
  stream = make_stream()
  batches = stream.iterate(5, workers=workers)
  for step in range(5, 8):
    found = next(batches).arrays
    assert all((found[key] == value).all() for key, value in stream.batch(step).arrays.items())
  batches.close()


def test_it_pickles_without_its_plans():
  stream = make_stream()
  expected = stream.batch(2).arrays
  copy = pickle.loads(pickle.dumps(stream))
  assert all((copy.batch(2).arrays[key] == value).all() for key, value in expected.items())


def test_an_epoch_may_end_inside_of_a_batch():
  stream = make_stream(batch_size=64, lengths=[30] * 5)
  arrays = stream.batch(0).arrays
  assert (arrays["target_segments"].max(axis=1) > 0).all() and len(arrays["targets"]) == 64


def test_plans_of_epochs_differ():
  stream = make_stream()
  first, second = stream.plan(0), stream.plan(1)
  assert (
    len(first.examples.begin) != len(second.examples.begin) or (first.examples.begin != second.examples.begin).any()
  )


def test_one_token_is_predicted_from_nothing():
  stream = make_stream(lengths=[1])
  arrays, v = epoch(stream), stream.vocabulary
  assert arrays["targets"][0, :2].tolist() == [int(stream.tokens.tokens[0]), v.eos]
  assert arrays["inputs"][0, 1] == v.eos and arrays["input_segments"].sum() == 2  # mode token, end of sequence


def test_a_plan_of_nothing_fits_no_row():
  made = plan.make(np.array([0, 5]), make_stream().mixture, seed=0, epoch=0, documents="shared")
  assert made.rows == 1 and made.examples.length.tolist() == [5]
