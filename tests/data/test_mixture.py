"""Mixtures: the paper's table, the lengths they fit, what no length fits."""

import numpy as np
import pytest

from ssljax.data.mixture import MIXTURES, Denoiser, Mixture, named
from ssljax.errors import UserError


def test_the_table_of_the_paper():
  rows = [(d.group, d.mean_span, d.density) for d in named("ul2")]
  assert rows == [
    *(("R", 3, 0.15), ("R", 8, 0.15), ("S", None, 0.25)),
    *(("X", 3, 0.5), ("X", 8, 0.5), ("X", 64, 0.15), ("X", 64, 0.5)),
  ]
  assert Mixture(named("ul2"), "encoder_decoder", 512, 512).shares.tolist() == [1 / 7] * 7


def test_ul2r_is_half_prefix_and_a_quarter_each():
  mixture = Mixture(named("ul2r"), "encoder_decoder", 512, 512)
  shares = {group: mixture.shares[[d.group == group for d in mixture.denoisers]].sum() for group in "SRX"}
  assert shares == {"S": 0.5, "R": 0.25, "X": 0.25}


def test_lengths_are_t5s_where_the_targets_have_room():
  mixture = Mixture(named("ul2"), "encoder_decoder", 512, 512, "absent")
  assert mixture.lengths == (568, 588, 512, 766, 908, 600, 1006)
  # The mode token takes its place from the text, not from the end of sequence.
  assert Mixture(named("ul2"), "encoder_decoder", 513, 512, "ul2").lengths == mixture.lengths
  assert mixture.sentinels == 128  # T5 has 100


def test_sequences_hold_inputs_and_targets():
  mixture = Mixture(named("span_corruption"), "decoder_only", 64, 0, "rsx")
  length = mixture.lengths[0]
  hidden, spans = mixture.denoisers[0].counts(np.array([length, length + 1]))
  total = np.array([length, length + 1]) + 2 * spans + 2  # sentinels twice, mode token, end of sequence
  assert total[0] <= 64 < total[1] and hidden[0] > 0


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: named("ul3"), "unknown mixture ul3"),
    (lambda: Denoiser(group="Q", density=0.5), "unknown group Q"),
    (lambda: Denoiser(group="R", density=1.5, mean_span=3), "density, expected"),
    (lambda: Denoiser(group="R", density=1.0, mean_span=3), "density, expected"),
    (lambda: Denoiser(group="S", density=0.7), "prefix split, expected at most 0.5"),
    (lambda: Denoiser(group="R", density=0.15, mean_span=0.5), "mean_span of at least 1"),
    (lambda: Mixture((), "encoder_decoder", 64, 64), "expected at least one"),
    (lambda: Mixture(named("ul2"), "encoder_decoder", 64, 64, "ul3"), "unknown modes ul3"),
    (
      lambda: Mixture(named("ul2"), "encoder_decoder", 64, 2),
      r"no text fits denoiser R \(mu 3, r 0.15\).*targets_length=2",
    ),
    (
      lambda: Mixture(named("ul2"), "encoder_decoder", 64, 64, row_inputs=32),
      "row_inputs: found 32, expected at least",
    ),
  ],
)
def test_bad_mixtures(make, message):
  with pytest.raises(UserError, match=message):
    make()


def test_every_mixture_can_be_laid_out_both_ways():
  for name, denoisers in MIXTURES.items():
    assert min(Mixture(denoisers, "encoder_decoder", 128, 128).lengths) > 50, name
    assert min(Mixture(denoisers, "decoder_only", 128, 0).lengths) > 50, name
